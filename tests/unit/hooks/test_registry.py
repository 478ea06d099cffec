"""Hooks are built from the entries of the hooks file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from receiver import hooks
from receiver.config.hook_secrets import secrets
from receiver.config.hooks_file import HookEntry
from receiver.deliveries import Subscription
from receiver.errors import SettingsError
from receiver.hooks.email import Email
from receiver.hooks.slack import Slack

MAIL = {"host": "smtp.example", "from": "a@shop.example", "to": "b@shop.example"}


def entry(type_: str, options: dict[str, Any], name: str = "x") -> HookEntry:
    return HookEntry(name, type_, Subscription(name, frozenset({"failed"})), options)


def problems(type_: str, options: dict[str, Any], **environ: str) -> set[str]:
    with pytest.raises(SettingsError) as caught:
        hooks.build(entry(type_, options), environ)
    return set(caught.value.problems)


class OptionsHook(Slack):
    """A hook that shows the options from which it was built."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name, self.options = name, options


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Build a hook of the type `given`, and return the options that it received."""
    monkeypatch.setattr(hooks, "TYPES", {**hooks.TYPES, "given": OptionsHook})

    def build(options: dict[str, Any], **environ: str) -> dict[str, Any]:
        built = hooks.build(entry("given", options), environ)
        assert isinstance(built, OptionsHook)
        assert built.name == "x"
        return dict(built.options)

    return build


def test_secrets_are_read_from_the_environment(given: Callable[..., dict[str, Any]]) -> None:
    options = {"url": "https://hooks.slack.com/services/${SLACK_PATH}"}
    assert given(options, SLACK_PATH="T/B/x") == {"url": "https://hooks.slack.com/services/T/B/x"}
    assert hooks.build(entry("slack", options), {"SLACK_PATH": "T/B/x"}).name == "x"


def test_secrets_in_lists_and_in_files_are_read(
    tmp_path: Path, given: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    options = {**MAIL, "to": ["${A}", "c@shop.example"], "username": "u", "password": "${P}"}
    environ = {"A": "a@shop.example", "P_FILE": str(tmp_path / "password")}
    found = given(options, **environ)
    assert found["to"] == ["a@shop.example", "c@shop.example"]
    assert found["password"] == "s3cret"
    assert hooks.build(entry("email", options), environ).name == "x"


def test_references_in_the_value_of_a_variable_are_not_expanded(
    given: Callable[..., dict[str, Any]],
) -> None:
    found = given({"url": "https://hooks.example/${A}"}, A="${B}", B="oops")
    assert found["url"] == "https://hooks.example/${B}"


def test_the_error_for_a_missing_variable_names_hook_and_key(tmp_path: Path) -> None:
    assert problems("slack", {"url": "${SLACK_URL}"}, SLACK_URL="") == {
        'hooks.toml: hook "x": url: SLACK_URL is not set (nor is SLACK_URL_FILE)'
    }
    missing = str(tmp_path / "gone")
    assert problems("slack", {"url": "${SLACK_URL}"}, SLACK_URL_FILE=missing) == {
        f'hooks.toml: hook "x": url: SLACK_URL_FILE: {missing} is not a readable file'
    }


def test_the_error_for_an_unknown_key_lists_the_known_ones() -> None:
    assert problems("slack", {"url": "https://hooks.example/", "channel": "#a"}) == {
        (
            'hooks.toml: hook "x": channel: is not an option of this type; '
            "use allow_private, blocks, deadline, pictures, text or url"
        )
    }


@pytest.mark.parametrize(
    ("key", "similar"), [("retries", "retry"), ("rate_limit", "rate"), ("blcks", "blocks")]
)
def test_the_error_for_an_unknown_key_names_a_similar_one(key: str, similar: str) -> None:
    found = problems("slack", {"url": "https://hooks.example/", key: "x"})
    problem = f"{key}: is not an option of this type; did you mean {similar}?"
    assert found == {f'hooks.toml: hook "x": {problem}'}


def test_all_mistakes_of_all_hooks_are_reported_together() -> None:
    with pytest.raises(SettingsError) as caught:
        hooks.build_all(
            [
                entry("slack", {"url": "ftp://x"}, "a"),
                entry("email", {**MAIL, "port": 0, "starttls": "maybe"}, "b"),
                entry("download", {"to": "${NOWHERE}"}, "c"),
            ],
            {},
        )
    assert set(caught.value.problems) == {
        'hooks.toml: hook "a": url: is not a URL; use one like https://example.com/path',
        'hooks.toml: hook "b": port: use 1 to 65535',
        'hooks.toml: hook "b": starttls: use auto (when offered), always or never',
        'hooks.toml: hook "c": to: NOWHERE is not set (nor is NOWHERE_FILE)',
    }


def test_hooks_are_returned_by_name() -> None:
    found = hooks.build_all([entry("email", MAIL, "a"), entry("email", MAIL, "b")], {})
    assert {name: hook.name for name, hook in found.items()} == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"from": "nobody"}, "from: is not an address; use name@example.com or Name <name@"),
        ({"from": "a@b.c\r\nBcc: d@e.f"}, "from: is not an address"),
        ({"to": []}, "to: is empty"),
        ({"to": ["a@b.c", "x"]}, "to: is not an address"),
        ({"to": 7}, "to: Not a valid list."),
        ({"subject": "{task.__class__}"}, "subject: use {reference}, {task}, {status} or {provi"),
        ({"subject": "{"}, "subject: is not a template"),
        ({"username": "u"}, "password: is missing; a login needs both"),
        ({"password": "p"}, "username: is missing; a login needs both"),
        ({"username": "u", "password": "pä"}, "password: has characters outside ASCII"),
        (
            {"username": "u", "password": "p", "starttls": "never"},
            "starttls: never: the password would be sent unencrypted",
        ),
        ({"deadline": 0}, "deadline: use 0.5 to 3600 seconds"),
        ({"host": ""}, "host: is empty"),
    ],
)
def test_invalid_options_of_an_email_hook_are_refused(more: dict[str, Any], expected: str) -> None:
    (line,) = problems("email", {**MAIL, **more})
    assert line.startswith(f'hooks.toml: hook "x": {expected}')


def test_a_login_to_this_machine_may_be_unencrypted() -> None:
    options = {**MAIL, "host": "127.0.0.1", "username": "u", "password": "p", "starttls": "never"}
    assert isinstance(hooks.build(entry("email", options), {}), Email)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"path": "../{task}"}, "path: is not a path below"),
        ({"path": "/{task}"}, "path: is not a path below"),
        ({"path": "{task}//x"}, "path: is not a path below"),
        ({"path": "a/./{task}"}, "path: is not a path below"),
        ({"path": "a\\{task}"}, "path: is not a path below"),
        ({"path": "{index}.{extension}"}, "path: lacks {task}"),
        ({"path": "{task}/{name}"}, "path: use {provider}, {account}, {task}"),
        ({"path": "{task!r}"}, "path: use {provider}"),
        ({"max_bytes": 0}, "max_bytes: use 1 or more"),
        ({"to": ""}, "to: is empty"),
        ({"to": "nosuch://bucket"}, "to: cannot be used: Protocol not known: nosuch"),
    ],
)
def test_invalid_options_of_a_download_hook_are_refused(
    more: dict[str, Any], expected: str
) -> None:
    (line,) = problems("download", {"to": "files", **more})
    assert line.startswith(f'hooks.toml: hook "x": {expected}')


def test_urls_of_services_are_secrets_but_the_url_of_a_bucket_is_not() -> None:
    found = secrets(
        [
            entry("download", {"to": "s3://shop/pictures", "endpoint_url": "${STORE}"}),
            entry("slack", {"url": "https://hooks.example/T0"}),
        ],
        {"STORE": "https://minio.example"},
    )
    assert found == {"https://minio.example", "https://hooks.example/T0"}
