"""Every command that uses accounts reports all their invalid settings before it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from receiver.stores import Store
from submitter import ConfigurationError, submit
from submitter.cli import main
from submitter.reconcile import Reconciler
from tests.support.scripted_provider import Scripted

CANARY = "canary-7"  # part of every value that must not be displayed
INVALID = [  # the name, the value, the name that is reported, and the remedy
    ("KLING_BASE_URL", "notaurl", "KLING_BASE_URL", "use one like https://"),
    ("KLING_BASE_URL", f"https://user:{CANARY}@a.example", "KLING_BASE_URL", "remove it"),
    ("KLING_BASE_URL_FILE", "/nowhere", "KLING_BASE_URL_FILE", "correct the path"),
    ("KLING_ACCESS_KEY", CANARY, "KLING_SECRET_KEY", "KLING_ACCESS_KEY needs it"),
    ("KLING_SECRET_KEY", CANARY, "KLING_ACCESS_KEY", "KLING_SECRET_KEY needs it"),
    ("KLING_API_KEY", f"{CANARY} {CANARY}", "KLING_API_KEY", "copy it again"),
    ("KLING_API_KEY_FILE", "/nowhere", "KLING_API_KEY_FILE", "correct the path"),
    ("KLING_API_KEY_FILE", "bytes", "KLING_API_KEY_FILE", "correct the path"),
]
OF_OTHER_ACCOUNTS = [
    ("KLING_SHOP2_SECRET_KEY", CANARY, "KLING_SHOP2_ACCESS_KEY", "KLING_SHOP2_SECRET_KEY needs it"),
    ("MODELLIX_CREATE_PATH", "/without/the/model", "MODELLIX_CREATE_PATH", "use one like /api"),
    ("APPYPIE_SUBSCRIPTION_KEY", f"{CANARY}\u2764", "APPYPIE_SUBSCRIPTION_KEY", "copy it again"),
]
SUBMIT = ("submit", "--human", "https://x.example/h.jpg", "--cloth", "https://x.example/c.jpg")
EVERY_ACCOUNT = [("reconcile",), ("reconcile", "--forever"), ("batch", "rows.csv")]
Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(
    tmp_path: Path, database: Path, store: Store, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run a command in an environment with a key, unless the test sets the keys."""
    store.check_schema()  # already migrated
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "rows.csv").write_text(
        "reference,human,cloth\nA,https://x.example/h.jpg,https://x.example/c.jpg\n"
    )
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.setenv("CALLBACK_SECRETS", "s" * 43)
    monkeypatch.setattr(Reconciler, "run", lambda *_: pytest.fail("the poller was started"))

    def run(*arguments: str, **environment: str) -> tuple[int, list[str]]:
        if not any("_KEY" in name and "SHOP2" not in name for name in environment):
            environment = {"KLING_API_KEY": "k" * 32, **environment}
        result = CliRunner().invoke(main, arguments, env=environment)
        assert CANARY not in result.output
        assert server.asked == []
        assert store.lists.tasks() == []
        return result.exit_code, result.stderr.splitlines()

    return run


@pytest.mark.parametrize("command", [SUBMIT, *EVERY_ACCOUNT], ids=" ".join)
@pytest.mark.parametrize(("name", "value", "reported", "remedy"), INVALID)
def test_an_invalid_setting_is_reported_before_anything_starts(
    run: Run, command: tuple[str, ...], name: str, value: str, reported: str, remedy: str
) -> None:
    status, lines = run(*command, **{name: value})
    assert status == 2
    (line,) = lines
    assert line.startswith(f"submitter: {reported}: ")
    assert remedy in line


@pytest.mark.parametrize("command", EVERY_ACCOUNT, ids=" ".join)
@pytest.mark.parametrize(("name", "value", "reported", "remedy"), OF_OTHER_ACCOUNTS)
def test_a_command_for_all_accounts_reports_the_problems_of_all(
    run: Run, command: tuple[str, ...], name: str, value: str, reported: str, remedy: str
) -> None:
    status, (line,) = run(*command, **{name: value})
    assert status == 2
    assert line.startswith(f"submitter: {reported}: ")
    assert remedy in line


@pytest.mark.parametrize("command", [SUBMIT, *EVERY_ACCOUNT], ids=" ".join)
def test_all_problems_are_reported_together(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "hooks.toml").write_text("[[hook]]\ntype = 'pigeon'\n")
    status, lines = run(
        *command,
        KLING_BASE_URL="notaurl",
        KLING_API_KEY="two words",
        PUBLIC_URL="notaurl",
        WORKER_CONCURRENCY="many",
        TIMEZONE_FILE="/nowhere",
    )
    assert status == 2
    assert {line.split(": ")[1] for line in lines} == {
        "KLING_BASE_URL",
        "KLING_API_KEY",
        "PUBLIC_URL",
        "WORKER_CONCURRENCY",
        "TIMEZONE_FILE",
        "hooks.toml",
    }


def test_an_empty_setting_is_unset(run: Run) -> None:
    status, (line,) = run(*SUBMIT, KLING_API_KEY="", KLING_BASE_URL=" ", MODELLIX_API_KEY="")
    assert status == 2
    assert line.startswith("submitter: KLING_API_KEY: not set; set it, or KLING_ACCESS_KEY and")


def test_a_provider_without_keys_is_not_a_problem(run: Run) -> None:
    assert run("reconcile", KLING_API_KEY="", KLING_BASE_URL="") == (0, [])


def test_the_library_reports_all_problems_together(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("reconcile") == (0, [])
    monkeypatch.setenv("KLING_ACCESS_KEY", CANARY)
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(ConfigurationError) as caught:
        submit("kling", "https://x.example/h.jpg", "https://x.example/c.jpg")
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "KLING_SECRET_KEY",
        "PORT",
    ]
