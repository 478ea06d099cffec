"""Hooks that use the outputs of other hooks: what they wait for, and mistakes in hooks.toml."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from receiver.config import hooks_file
from receiver.config.chains import used_in_templates
from receiver.config.hooks_file import HookEntry
from receiver.errors import SettingsError
from tests.support.hook_servers import notice

HOOKS = """
[[hook]]
name = "pictures"
type = "download"
[[hook]]
name = "cutout"
type = "python"
after = "pictures"
[[hook]]
name = "check"
type = "command"
after = "cutout"
"""
BODY = "body = '{\"url\": {{ outputs.cutout.url }}}'"


def load(text: str) -> dict[str, HookEntry]:
    entries = hooks_file.parse(text, Path("hooks.toml"), lambda _: None)
    return {entry.name: entry for entry in entries}


def with_shop(more: str, type_: str = "webhook") -> str:
    return f'{HOOKS}[[hook]]\nname = "shop"\ntype = "{type_}"\n{more}\n'


def wait(more: str, type_: str = "webhook") -> tuple[str | None, int | None]:
    subscription = load(with_shop(more, type_))["shop"].subscription
    return subscription.after, subscription.wait_ms


@pytest.mark.parametrize(
    ("more", "after"),
    [
        (BODY, "cutout"),
        (f'after = "cutout"\n{BODY}', "cutout"),
        (f'after = "check"\n{BODY}', "check"),  # which waits for it
        ("body = '{{ outputs[\"cutout\"].url }} {{ outputs.check.ok }}'", "check"),
        ('headers = { "X-Cut" = "{{ outputs.cutout.id }}" }', "cutout"),
        ('where = { "outputs.check.ok" = true }', "check"),
        ('[hook.where.outputs.check]\nok = true\n"a.b" = { min = 1 }', "check"),
        (f'where = {{ "outputs.check.ok" = true }}\n{BODY}', "check"),
    ],
)
def test_a_hook_waits_for_the_hooks_whose_outputs_it_uses(more: str, after: str) -> None:
    assert wait(more) == (after, None)


@pytest.mark.parametrize("type_", ["email", "slack"])
def test_a_notification_that_uses_an_output_waits_for_it_without_a_limit(type_: str) -> None:
    assert wait('text = "{{ outputs.cutout.url }}"', type_) == ("cutout", None)
    assert wait("", type_) == ("pictures", 120_000)


def test_a_hook_knows_all_hooks_ahead_of_it() -> None:
    """The event may be for only some of them."""
    loaded = load(with_shop('after = "check"'))
    ahead = {name: entry.subscription.ahead for name, entry in loaded.items()}
    assert ahead == {
        "pictures": (),
        "cutout": (),
        "check": ("pictures",),
        "shop": ("cutout", "pictures"),
    }


def test_the_order_in_the_file_does_not_matter() -> None:
    shop = '[[hook]]\nname = "shop"\ntype = "webhook"\nbody = "{{ outputs.b.x }}{{ outputs.a.x }}"'
    b = '[[hook]]\nname = "b"\ntype = "command"\nwhere = { "outputs.a.x" = 1 }'
    a = '[[hook]]\nname = "a"\ntype = "python"'
    loaded = load(f"{shop}\n{b}\n{a}")
    assert loaded["shop"].subscription.after == "b"
    assert loaded["b"].subscription.after == "a"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('body = "{{ outputs.cutuot.url }}"', 'there is no hook "cutuot"'),
        ('where = { "outputs.cutuot.ok" = true }', 'there is no hook "cutuot"'),
        ('body = "{{ outputs.shop.url }}"', "cannot use its own output"),
        ('body = "{{ outputs.pictures.url }}"', "of type download, which returns no output"),
        (f'after = ""\n{BODY}', 'after: is empty, but the hook uses the output of "cutout"'),
        (
            f'after = "pictures"\n{BODY}',
            'after: is "pictures", but the hook uses the output of "cutout"',
        ),
        (f'wait_for_files = "2m"\n{BODY}', 'wait_for_files: the hook uses the output of "cutout"'),
        ('where = { "outputs" = "*" }', "where.outputs: is an object; name a hook and a key"),
        ('where = { "outputs.cutout..ok" = true }', "has an empty part"),
        ('where = { "outputs.cutout.ok" = [] }', "is an empty list"),
    ],
)
def test_a_wrong_use_of_an_output_is_an_error(more: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(with_shop(more))
    (found,) = caught.value.problems
    assert found.startswith('hooks.toml: hook "shop": ')
    assert problem in found


def test_outputs_of_hooks_that_do_not_wait_for_each_other_are_an_error() -> None:
    other = '[[hook]]\nname = "other"\ntype = "python"\n'
    shop = with_shop('body = "{{ outputs.cutout.url }}{{ outputs.other.url }}"')
    with pytest.raises(SettingsError, match="let one of these wait for the others"):
        load(other + shop)


def test_hooks_that_use_the_outputs_of_each_other_are_an_error() -> None:
    one = '[[hook]]\nname = "a"\ntype = "command"\nwhere = { "outputs.b.x" = 1 }\n'
    other = '[[hook]]\nname = "b"\ntype = "command"\nwhere = { "outputs.a.x" = 1 }\n'
    with pytest.raises(SettingsError, match='"a": after: waits for itself through "b"'):
        load(one + other)


@pytest.mark.parametrize(
    "text",
    [
        "the outputs.cutout of {{ outputs.cutout }}",
        "{{ outputs . cutout.url }}",
        "{{ outputs [ 'cutout' ] }}",
        '{{ outputs.get("cutout") }}',
        "{%- if outputs.cutout is defined %}…{% endif %}",
        '{{ "}" ~ outputs.cutout.url }}',
        "{# a comment #}{{ task.id }}{{- outputs.cutout -}}",
    ],
)
def test_every_spelling_of_an_output_is_found(text: str) -> None:
    assert used_in_templates({"text": text}) == {"cutout"}


@pytest.mark.parametrize(
    "text",
    [
        "the outputs.cutout",
        "{{ task.id }} is in outputs.zip",
        '{"file": "outputs.zip", "order": {{ task.reference }}}',
        "{{ 'outputs.zip' }} {{ \"it's outputs.zip\" }}",
        "{{ task.metadata.outputs.total }} {{ my_outputs.cutout }}",
        "{# {{ outputs.cutout }} #} {{ task.id }}",
        "{% raw %}{{ outputs.cutout }}{% endraw %}",
        "{% for name in outputs.items() %}{% endfor %}",
    ],
)
def test_only_expressions_use_outputs(text: str) -> None:
    assert used_in_templates({"text": text, "n": 1, "list": [{"a": None}, text]}) == set()


def test_a_hook_may_have_the_name_of_a_method() -> None:
    assert used_in_templates(["{{ outputs['items'].url }}"]) == {"items"}


def test_a_template_is_searched_in_linear_time() -> None:
    for part in ("{{ '", "{#", "{%raw", "{%", "{{ outputs", "{{ outputs.get("):
        assert used_in_templates(part * 10_000) == set()
    assert used_in_templates("{{ outputs" + " " * 40_000) == set()


@pytest.mark.parametrize(
    ("outputs", "matches"),
    [
        ({}, False),
        ({"check": {}}, False),
        ({"check": {"ok": True}}, False),
        ({"check": {"ok": True, "scores": [0.2, 0.95]}}, True),
        ({"check": {"ok": "true", "scores": [0.95]}}, False),
        ({"other": {"ok": True, "scores": [0.95]}}, False),
    ],
)
def test_a_filter_for_outputs_is_evaluated_when_they_are_known(
    outputs: dict[str, dict[str, object]], matches: bool
) -> None:
    where = 'where = { "outputs.check.ok" = true, "outputs.check.scores" = { min = 0.9 } }'
    found = load(with_shop(where))["shop"].subscription.where
    assert found is not None
    event = replace(notice(), outputs=outputs)
    assert found.matches(event)  # the outputs are not known when the delivery is written
    assert (found.unmet(event) is None) is matches


def test_a_filter_shows_its_conditions_for_outputs() -> None:
    found = load(with_shop('where = { "outputs.check.ok" = true }'))["shop"].subscription.where
    assert str(found) == "outputs.check.ok = true"
