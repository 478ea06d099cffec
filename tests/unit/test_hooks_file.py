"""The valid contents of hooks.toml, and the errors for anything else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from receiver import hooks
from receiver.config import hooks_file, settings
from receiver.config.hooks_file import HookEntry, HooksPath
from receiver.endpoints import Limits, Rate
from receiver.errors import SettingsError


def spelling(status: str) -> str | None:
    return {"succeed": "succeeded"}.get(status)


def load(tmp_path: Path, text: str, providers: tuple[str, ...] = ()) -> tuple[HookEntry, ...]:
    path = tmp_path / "hooks.toml"
    path.write_text(text, "utf-8")
    return hooks_file.load(path, spelling, providers)


def problems(tmp_path: Path, text: str, providers: tuple[str, ...] = ()) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text, providers)
    return caught.value.problems


def hook(name: str, type_: str = "email", more: str = "") -> str:
    return f'[[hook]]\nname = "{name}"\ntype = "{type_}"\n{more}\n'


def waits(entries: tuple[HookEntry, ...]) -> dict[str, str | None]:
    return {entry.name: entry.subscription.after for entry in entries}


def test_a_missing_file_is_an_error_unless_no_setting_names_it(tmp_path: Path) -> None:
    path = tmp_path / "hooks.toml"
    with pytest.raises(SettingsError, match=f"HOOKS_FILE: {path} does not exist; .*create"):
        hooks_file.load(path, spelling)
    assert hooks_file.load(path, spelling, must_exist=False) == ()


@pytest.mark.parametrize("must_exist", [True, False])
def test_a_link_to_a_missing_file_is_always_an_error(tmp_path: Path, must_exist: bool) -> None:
    path, gone = tmp_path / "hooks.toml", tmp_path / "gone.toml"
    path.symlink_to(gone)
    with pytest.raises(SettingsError, match=f"the link {path}: {gone} does not exist; correct"):
        hooks_file.load(path, spelling, must_exist=must_exist)


@pytest.mark.parametrize("must_exist", [True, False])
def test_a_path_that_is_not_a_file_is_always_an_error(tmp_path: Path, must_exist: bool) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "hooks.toml", tmp_path / ("x" * 300)):
        with pytest.raises(SettingsError, match=r"hooks file: \S+ cannot be read"):
            hooks_file.load(path, spelling, must_exist=must_exist)


@pytest.mark.parametrize("text", [None, "", "  "])
def test_an_empty_setting_is_the_default(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOKS_FILE", raising=False)
    if text is not None:
        monkeypatch.setenv("HOOKS_FILE", text)
    assert settings.hooks_path() == HooksPath(must_exist=False)
    path = tmp_path / "own.toml"
    path.touch()
    monkeypatch.setenv("HOOKS_FILE", f" {path} ")
    assert settings.hooks_path() == HooksPath(path, must_exist=True)


def test_an_empty_file_contains_no_hooks(tmp_path: Path) -> None:
    assert load(tmp_path, "") == ()


def test_a_hook_receives_final_statuses_by_default(tmp_path: Path) -> None:
    (entry,) = load(tmp_path, hook("mail", more='host = "smtp.example"\nto = ["${TEAM}"]'))
    assert (entry.name, entry.type) == ("mail", "email")
    assert entry.subscription.hook == "mail"
    assert entry.subscription.on == {"succeeded", "failed"}
    assert entry.subscription.providers == frozenset()
    assert entry.subscription.match == "*"
    assert entry.options == {"host": "smtp.example", "to": ["${TEAM}"]}  # not resolved here


def test_a_subscription_accepts_the_statuses_of_a_provider(tmp_path: Path) -> None:
    more = 'on = ["succeed", "processing", "given_up"]\nproviders = ["kling"]\nmatch = "SHOP-*"'
    (entry,) = load(tmp_path, hook("mail", more=more), ("kling", "modellix"))
    assert entry.subscription.on == {"succeeded", "processing", "given_up"}
    assert entry.subscription.providers == {"kling"}
    assert entry.subscription.match == "SHOP-*"


def test_notifications_wait_for_the_first_download_hook(tmp_path: Path) -> None:
    text = hook("mail") + hook("chat", "slack") + hook("phone", "apprise")
    text += hook("a", "download") + hook("b", "download") + hook("shop", "webhook")
    assert waits(load(tmp_path, text)) == {
        "mail": "a", "chat": "a", "phone": "a", "a": None, "b": None, "shop": None,
    }  # fmt: skip


def test_only_notifications_have_a_limited_wait_by_default(tmp_path: Path) -> None:
    text = hook("files", "download") + hook("mail") + hook("chat", "slack")
    text += hook("phone", "apprise", 'after = "shop"') + hook("shop", "webhook", 'after = "files"')
    found = {entry.name: entry.subscription.wait_ms for entry in load(tmp_path, text)}
    limited = {"mail": 120_000, "chat": 120_000, "phone": 120_000}
    assert found == {**limited, "files": None, "shop": None}


@pytest.mark.parametrize("type_", ["email", "slack", "apprise", "webhook", "command", "python"])
@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [('"2m"', 120_000), ('"45s"', 45_000), ('"12h"', 43_200_000), ("90", 90_000), ("0.5", 500)],
)
def test_every_hook_may_limit_its_wait(
    tmp_path: Path, type_: str, written: str, milliseconds: int
) -> None:
    more = f'after = "files"\nwait_for_files = {written}'
    (_, entry) = load(tmp_path, hook("files", "download") + hook("x", type_, more))
    assert entry.subscription.wait_ms == milliseconds
    assert entry.options == {}


@pytest.mark.parametrize(
    "written", ['"two minutes"', '""', "0", "-1", "true", "nan", "inf", "[120]", '"0s"', "4e9"]
)
def test_the_error_for_an_invalid_duration_names_the_key(tmp_path: Path, written: str) -> None:
    text = hook("files", "download") + hook("mail", more=f"wait_for_files = {written}")
    assert problems(tmp_path, text) == (
        (
            'hooks.toml: hook "mail": wait_for_files: is not a duration; '
            'use one like "90s" or "2m"; after = "" does not wait'
        ),
    )


def test_a_limit_without_a_wait_is_a_mistake_except_for_notifications(tmp_path: Path) -> None:
    limit = 'wait_for_files = "2m"'
    assert load(tmp_path, hook("mail", more=limit))
    assert problems(tmp_path, hook("shop", "webhook", limit)) == (
        (
            'hooks.toml: hook "shop": wait_for_files: it waits for no hook; '
            'name one with after = "…", or leave this out'
        ),
    )


def test_without_a_download_hook_no_hook_waits(tmp_path: Path) -> None:
    assert waits(load(tmp_path, hook("mail"))) == {"mail": None}


def test_an_empty_after_means_no_wait(tmp_path: Path) -> None:
    text = hook("mail", more='after = ""') + hook("files", "download")
    assert waits(load(tmp_path, text))["mail"] is None


def test_after_accepts_a_name_or_the_word_download(tmp_path: Path) -> None:
    text = hook("x", more='after = "download"') + hook("y", more='after = "b"')
    text += hook("a", "download") + hook("b", "download")
    assert waits(load(tmp_path, text)) == {"x": "a", "y": "b", "a": None, "b": None}


def test_a_hook_named_download_has_precedence(tmp_path: Path) -> None:
    text = hook("x", more='after = "download"') + hook("a", "download")
    assert waits(load(tmp_path, text + hook("download", "download")))["x"] == "download"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            hook("mail", more='on = ["sucess"]'),
            (
                'hooks.toml: hook "mail": on: "sucess" is not a status; '
                "use submitted, processing, succeeded, failed, given_up or *"
            ),
        ),
        (
            hook("mail", more='on = ["created"]'),  # no transition leads to it
            (
                'hooks.toml: hook "mail": on: "created" is not a status; '
                "use submitted, processing, succeeded, failed, given_up or *"
            ),
        ),
        (
            hook("mail", more="on = []"),
            (
                'hooks.toml: hook "mail": on: is empty; '
                "use submitted, processing, succeeded, failed, given_up or *"
            ),
        ),
        (hook("mail", more='on = "failed"'), 'hooks.toml: hook "mail": on: Not a valid list.'),
        (
            hook("mail", "telegram"),
            (
                'hooks.toml: hook "mail": type: "telegram" is not a hook type; '
                "use apprise, command, download, email, python, queue, slack or webhook"
            ),
        ),
        (
            hook("mail", more='providers = ["klign"]'),
            'hooks.toml: hook "mail": providers: "klign" is not a provider; use kling or modellix',
        ),
        (
            "[[hook]]\ntype = 'email'\n",
            "hooks.toml: hook 1: name: Missing data for required field.",
        ),
        (
            "[[hook]]\nname = 'x'\n",
            'hooks.toml: hook "x": type: Missing data for required field.',
        ),
        (
            hook("a b"),
            "hooks.toml: hook \"a b\": name: use 1 to 40 letters, digits, '-' and '_'",
        ),
        (
            hook("x" * 41),
            f"hooks.toml: hook \"{'x' * 41}\": name: use 1 to 40 letters, digits, '-' and '_'",
        ),
        (
            hook("mail") + hook("mail"),
            'hooks.toml: hook "mail": name: is used twice; give every hook a name of its own',
        ),
        (
            hook("mail", more='after = "files"'),
            'hooks.toml: hook "mail": after: there is no hook "files"',
        ),
        (
            hook("mail", more='after = "download"'),
            'hooks.toml: hook "mail": after: there is no hook "download"',
        ),
        (
            hook("mail", more='after = "mail"'),
            'hooks.toml: hook "mail": after: waits for itself; after = "" does not wait',
        ),
        (
            hook("a", more='after = "b"')
            + hook("b", more='after = "c"')
            # "d" waits for a hook of the cycle, but is not part of it
            + hook("c", more='after = "a"')
            + hook("d", more='after = "a"'),
            (
                'hooks.toml: hook "a": after: waits for itself through "b" through "c"; '
                'after = "" does not wait'
            ),
        ),
        (
            # mail hooks wait by default
            hook("mail") + hook("files", "download", 'after = "mail"'),
            (
                'hooks.toml: hook "mail": after: waits for itself through "files"; '
                'after = "" does not wait'
            ),
        ),
        (
            "[smtp]\nhost = 'x'\n",
            'hooks.toml: "smtp" is unknown here; every hook is a [[hook]] table',
        ),
        ("[hook]\nname = 'x'\n", "hooks.toml: hook: write [[hook]], with two brackets"),
        ("hook = ['x']\n", "hooks.toml: hook: write [[hook]], with two brackets"),
        (
            "[[hook]\n",
            (
                "hooks.toml: is not TOML: Expected ']]' at the end of an array declaration "
                "(at line 1, column 7)"
            ),
        ),
    ],
)
def test_the_error_for_a_mistake_states_its_place(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text, ("kling", "modellix")) == (expected,)


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    text = hook("a", "fax", 'on = ["x", "y"]') + hook("b", more='after = "zzz"') + hook("b")
    found = problems(tmp_path, text)
    assert len(found) == 5
    assert all(line.startswith("hooks.toml: hook ") for line in found)


def test_another_hook_may_wait_for_a_hook_with_a_mistake(tmp_path: Path) -> None:
    text = hook("files", "download", 'on = ["x"]') + hook("mail", more='after = "files"')
    text += hook("chat", "slack", 'after = "download"')
    assert len(problems(tmp_path, text)) == 1


def test_an_unreadable_file_causes_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"hooks file: \S+ cannot be read"):
        hooks_file.load(tmp_path, spelling)  # a folder
    (tmp_path / "hooks.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not TOML"):
        hooks_file.load(tmp_path / "hooks.toml", spelling)


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "hooks.toml").write_bytes(b"\xef\xbb\xbf" + hook("mail").encode())
    assert len(hooks_file.load(tmp_path / "hooks.toml", spelling)) == 1


def test_the_types_are_those_of_the_registry() -> None:
    assert set(hooks_file.TYPES) == set(hooks.TYPES)


def test_the_web_process_imports_no_hook_types() -> None:
    code = (
        "import sys, receiver.config.hooks_file; "
        "sys.exit(any(name.startswith('receiver.hooks.') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_deeply_nested_file_causes_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "hooks.toml").write_text("a = " + "[" * 5_000)
    with pytest.raises(SettingsError) as caught:
        hooks_file.load(tmp_path / "hooks.toml", lambda _: None)
    assert caught.value.problems == ("hooks.toml: is nested too deeply",)


def test_a_hook_has_the_default_retries_and_no_limits(tmp_path: Path) -> None:
    (entry,) = load(tmp_path, hook("mail"))
    assert (entry.retry, entry.retry_for, entry.limits) == (None, None, Limits())
    assert hooks_file.limits_of([entry]) == {}


def test_a_hook_may_have_its_own_retries_and_limits(tmp_path: Path) -> None:
    first = hook("shop", more='retry = ["5s", "1m", 7.5]\nrate = "10/s"\nconcurrency = 2')
    entries = load(
        tmp_path, first + hook("mail", more='retry_for = "3d"\nrate = " 60 / m "') + hook("chat")
    )
    shop, mail, _ = entries
    assert (shop.retry, shop.retry_for) == ((5.0, 60.0, 7.5), None)
    assert (mail.retry, mail.retry_for) == (None, 259_200.0)
    assert hooks_file.limits_of(entries) == {
        "shop": Limits(Rate(10, "s"), 2),
        "mail": Limits(Rate(60, "m")),
    }
    assert shop.options == mail.options == {}
    assert load(tmp_path, hook("mail", more="retry = []"))[0].retry == ()


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("retry", '"5s"', 'is not a list of delays; use one like ["5s", "1m", "1h"]'),
        ("retry", '["5s", "2d"]', '"2d" is not a delay of at most 1d; use one like "5s" or "1h"'),
        ("retry", "[0]", '"0" is not a delay of at most 1d; use one like "5s" or "1h"'),
        ("retry", "[nan]", '"nan" is not a delay of at most 1d; use one like "5s" or "1h"'),
        ("retry", "[true]", '"True" is not a delay of at most 1d; use one like "5s" or "1h"'),
        ("retry", str(["1s"] * 101), "use at most 100 delays"),
        (
            "retry_for",
            '"91d"',
            '"91d" is not a duration of at most 90d; use one like "12h" or "3d"',
        ),
        ("concurrency", "0", "use 1 to 1000"),
        ("concurrency", '"2"', "is not a number; use 1 to 1000"),
        ("concurrency", "2.0", "is not a number; use 1 to 1000"),
    ],
)
def test_a_wrong_retry_or_concurrency_is_reported(
    tmp_path: Path, key: str, value: str, problem: str
) -> None:
    found = problems(tmp_path, hook("mail", more=f"{key} = {value}"))
    assert found == (f'hooks.toml: hook "mail": {key}: {problem}',)


@pytest.mark.parametrize(
    "value", ['"10"', "10", '"0/s"', '"10/d"', '"-1/s"', '"1000000/s"', '"/s"']
)
def test_a_wrong_rate_is_reported(tmp_path: Path, value: str) -> None:
    (problem,) = problems(tmp_path, hook("mail", more=f"rate = {value}"))
    shown = value.strip('"')
    assert problem == (
        f'hooks.toml: hook "mail": rate: "{shown}" is not a rate; write a whole number from 1 to '
        '100,000 per second, minute or hour, such as "10/s", "60/m" or "500/h"'
    )


@pytest.mark.parametrize("key", ["rate", "retry_for"])
def test_the_error_shows_only_the_beginning_of_a_long_value(tmp_path: Path, key: str) -> None:
    (problem,) = problems(tmp_path, hook("mail", more=f'{key} = "{"9" * 100_000}"'))
    assert f'"{"9" * 40}" is not a ' in problem
    assert len(problem) < 300


def test_a_wrong_retry_is_reported_together_with_other_mistakes(tmp_path: Path) -> None:
    more = 'retry = []\nretry_for = "3d"\nrate = "10"\nconcurrency = 0'
    assert {problem.split(": ")[2] for problem in problems(tmp_path, hook("mail", more=more))} == {
        "retry_for",
        "rate",
        "concurrency",
    }


def test_retry_and_retry_for_cannot_be_combined(tmp_path: Path) -> None:
    assert problems(tmp_path, hook("mail", more='retry = []\nretry_for = "3d"')) == (
        'hooks.toml: hook "mail": retry_for: cannot be combined with retry; remove one of them',
    )
