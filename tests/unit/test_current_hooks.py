"""Only SIGHUP makes a process read the hooks file again, and an invalid file changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.config.hooks_file import HookEntry, HooksPath
from receiver.config.settings import Settings
from receiver.delivery.loaded_hooks import LoadedHooks
from receiver.endpoints import Limits, Rate
from receiver.errors import SettingsError
from receiver.outgoing.retry import RetryPolicy
from receiver.processes import current_hooks
from receiver.processes.current_hooks import (
    HANDED_DOWN,
    REJECTED,
    RELOADED,
    CurrentHooks,
    entries_for,
)
from tests.support.samples import SECRET

SLACK = '[[hook]]\nname = "{}"\ntype = "slack"\nurl = "https://hooks.example/{}"\n{}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "hooks.toml"
    path.write_text(SLACK.format("chat", "first-secret-path", "alerts = true"))
    return path


def names(current: CurrentHooks) -> list[str]:
    return [entry.name for entry in current.entries]


def load(path: Path) -> CurrentHooks:
    return CurrentHooks.load(HooksPath(path, must_exist=True))


def test_the_log_names_the_process_that_read_the_file(path: Path) -> None:
    loaded = LoadedHooks(load(path), {})
    with capture_logs() as lines:
        loaded.reload()
        path.write_text("[[hook]]")
        loaded.reload()
    assert [(line["event"], line["process"]) for line in lines] == [
        (RELOADED, "worker"),
        (REJECTED, "worker"),
    ]


def test_a_valid_file_replaces_the_hooks(path: Path) -> None:
    current = load(path)
    path.write_text(SLACK.format("mail", "x", ""))
    assert names(current) == ["chat"]
    found = current.reloaded()
    assert (names(found), found.problem) == (["mail"], None)


@pytest.mark.parametrize(
    "content",
    [
        b'[[hook]]\nname = "cha',  # while an editor saves it
        b"\xff\xfe",
        b"hook = 3",
        b'[[hook]]\nname = "a b"\ntype = "slack"',
        b'[[hook]]\nname = "chat"\ntype = "fax"',
        b'[[hook]]\nname = "a"\ntype = "slack"\n' * 2,
        b"[" * 5_000,
        None,  # it was removed
    ],
)
def test_an_invalid_file_keeps_the_hooks_and_is_reported(path: Path, content: bytes | None) -> None:
    current = load(path)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    found = current.reloaded()
    assert names(found) == ["chat"]
    assert found.problem is not None
    assert "hooks.toml" in found.problem
    path.write_text(SLACK.format("mail", "x", ""))
    assert found.reloaded().problem is None


def test_a_variable_that_is_not_set_needs_a_restart(path: Path) -> None:
    """A process reads its environment and .env only once."""
    loaded = LoadedHooks(load(path), {})
    path.write_text(SLACK.format("chat", "${NEW}", ""))
    loaded.reload()
    assert loaded.current.problem == (
        'hooks.toml: hook "chat": url: NEW is not set (nor is NEW_FILE); '
        "a new variable, also one in .env, is known after a restart only"
    )


def test_an_optional_file_must_not_disappear_either(path: Path) -> None:
    """An editor may remove the file before it saves the new one; no hook would be notified then."""
    current = CurrentHooks.load(HooksPath(path))
    text = path.read_text()
    path.unlink()
    found = current.reloaded()
    assert names(found) == ["chat"]
    assert "does not exist" in (found.problem or "")
    path.write_text(text)
    assert found.reloaded() == current
    path.write_text("")
    without_hooks = found.reloaded()
    path.unlink()
    assert without_hooks.reloaded() == without_hooks


def test_a_file_that_became_a_folder_is_a_problem(path: Path) -> None:
    current = load(path)
    path.unlink()
    path.mkdir()
    assert "cannot be read" in (current.reloaded().problem or "")


def test_the_problem_has_a_limited_length_and_shows_no_secret(path: Path) -> None:
    current = load(path)

    def check(_: tuple[HookEntry, ...]) -> None:
        raise SettingsError([f"whsec_{'A' * 40}\0\ud800", *(["x" * 100] * 100)])

    problem = current.reloaded(check).problem or ""
    assert "whsec_A" not in problem
    assert len(problem) <= current_hooks.LONGEST_PROBLEM
    problem.encode()
    assert "\0" not in problem


def test_a_child_uses_the_accepted_content_and_not_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = load(path)
    path.write_text("half a fi")
    (descriptor,), environment = current.reloaded().hand_down()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    child = load(path)
    assert names(child) == ["chat"]
    assert "not TOML" in (child.problem or "")  # the problem is passed on with the file
    assert HANDED_DOWN not in os.environ
    with pytest.raises(SettingsError):  # once
        load(path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(descriptor)


@pytest.mark.parametrize("value", ["x", "-1", "99999", ""])
def test_an_invalid_descriptor_is_ignored(
    path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(HANDED_DOWN, value)
    assert names(load(path)) == ["chat"]


def test_a_different_file_than_the_inherited_one_is_read(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, environment = load(path).hand_down()
    monkeypatch.setenv(HANDED_DOWN, environment[HANDED_DOWN])
    (tmp_path / "other.toml").write_text("")
    assert names(load(tmp_path / "other.toml")) == []


def test_forked_workers_use_the_hooks_of_the_arbiter(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_hooks, "_in_use", None)  # restored after the test
    chosen = Settings("sqlite:///x", (SECRET,), hooks_file=path, needs_hooks_file=True)
    current_hooks.use(load(path))
    path.write_text("half a fi")
    assert [entry.name for entry in entries_for(chosen)] == ["chat"]


# -- the hooks of a worker


def test_a_worker_replaces_all_hooks_and_redacts_the_secrets_of_both(path: Path) -> None:
    loaded = LoadedHooks(load(path), {})
    assert [name for name, _ in loaded.alerting] == ["chat"]
    old = loaded["chat"]
    path.write_text(SLACK.format("mail", "second-secret-path", ""))
    loaded.reload()
    assert list(loaded) == ["mail"]
    assert "chat" not in loaded
    assert loaded.alerting == []
    assert old.name == "chat"  # an attempt that is still running continues
    shown = loaded.hide("first-secret-path second-secret-path")
    assert shown == "… …"


def test_a_worker_replaces_retries_and_limits(path: Path) -> None:
    loaded = LoadedHooks(load(path), {})
    assert (loaded.policies, loaded.limits) == ({}, {})
    paced = 'retry = ["5s"]\nrate = "10/s"'
    lasting = SLACK.format("mail", "x", 'retry_for = "9s"')
    path.write_text(SLACK.format("chat", "x", paced) + lasting)
    loaded.reload()
    assert loaded.limits == {"chat": Limits(Rate(10, "s"))}
    assert loaded.policies == {"chat": RetryPolicy((5,)), "mail": RetryPolicy((5, 4))}


def test_a_hook_that_cannot_be_built_keeps_all_hooks(path: Path) -> None:
    loaded = LoadedHooks(load(path), {})
    path.write_text(SLACK.format("mail", "x", "") + SLACK.format("chat", "${UNSET_NAME}", ""))
    loaded.reload()
    assert list(loaded) == ["chat"]
    assert "UNSET_NAME is not set" in (loaded.current.problem or "")
    path.write_text("")
    loaded.reload()
    assert (list(loaded), loaded.current.problem) == ([], None)
