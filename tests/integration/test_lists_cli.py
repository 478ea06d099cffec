"""The lists of the `receiver` command: filters and pagination."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver.cli import main
from receiver.clock import now_ms
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support.samples import SECRET, body, callback, subscription

DAY = 86_400_000
NOW = now_ms()
LISTS = ["tasks", "callbacks", "deliveries"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    (tmp_path / "hooks.toml").touch()


@pytest.fixture(autouse=True)
def filled(store: SqliteStore) -> SqliteStore:
    """Three tasks that succeeded; lower numbers are older tasks."""
    ingest = Ingest(store, [subscription("mail")])
    for number, account in enumerate(["default", "shop2", "shop2"], 1):
        at = NOW - (3 - number) * DAY - 1000
        reference = f"ORDER-{number}"
        task = f"task-{number}"
        store.inbox.create_task(
            Task(task, "kling", Status.CREATED, at, at, account, reference=reference)
        )
        ingest.accept(callback(body(task_id=f"at-{task}"), task, received_at=at))
    return store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def tasks_of(*arguments: str) -> list[str]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return [row.get("task", row["id"]) for row in json.loads(done.stdout)]


@pytest.mark.parametrize("command", LISTS)
@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ((), [3, 2, 1]),
        (("--account", "shop2"), [3, 2]),
        (("--reference", "ORDER-2"), [2]),
        (("--provider", "appypie"), []),
        (("--since", "36h"), [3, 2]),
        (("--since", "36h", "--until", "12h"), [2]),
        (("--until", "12h", "--account", "default"), [1]),
        (("--limit", "1"), [3]),
    ],
)
def test_a_list_can_be_filtered(command: str, options: tuple[str, ...], numbers: list[int]) -> None:
    assert tasks_of(command, *options) == [f"task-{number}" for number in numbers]


@pytest.mark.parametrize("command", LISTS)
def test_a_full_page_says_how_to_continue(command: str) -> None:
    done = run(command, "--limit", "2", "--json")
    assert len(json.loads(done.stdout)) == 2
    hint = done.stderr.strip()
    assert hint.startswith("there are older rows; continue with --cursor ")
    assert tasks_of(command, "--limit", "2", "--cursor", hint.split()[-1]) == ["task-1"]
    assert run(command, "--limit", "3").stderr == ""


@pytest.mark.parametrize("command", LISTS)
@pytest.mark.parametrize(
    "wrong",
    [("--since", "yesterday"), ("--limit", "0"), ("--cursor", "x"), ("--provider", "piapi")],
)
def test_an_invalid_filter_is_a_usage_error(command: str, wrong: tuple[str, str]) -> None:
    done = run(command, *wrong)
    assert done.exit_code == 2
    assert wrong[0] in done.stderr


def test_endpoints_are_filtered_by_their_circuit(filled: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "hooks.toml").write_text(
        "".join(
            f'[[hook]]\nname = "{name}"\ntype = "slack"\nurl = "https://hooks.example/x"\n'
            for name in ("chat", "night")
        )
    )
    filled.endpoints.pause("chat", NOW)

    def named(*options: str) -> list[str]:
        return [one["hook"] for one in json.loads(run("endpoints", "--json", *options).stdout)]

    assert named() == ["chat", "night"]
    assert named("--circuit", "paused") == ["chat"]
    assert named("--circuit", "closed") == named("--circuit", "healthy") == ["night"]
    assert run("endpoints", "--circuit", "broken").exit_code == 2


def test_deliveries_show_what_they_wait_for_and_until_when(store: SqliteStore) -> None:
    hooks = [subscription("files"), subscription("chat", after="files", wait_ms=DAY)]
    Ingest(store, hooks).accept(callback(body(task_id="at-9"), "task-9", received_at=NOW))
    (until,) = [
        found["due_at"]
        for found in json.loads(run("deliveries", "--hook", "chat", "--json").stdout)
    ]
    shown = run("deliveries", "--hook", "chat").stdout
    assert f"after files, or {until[:19].replace('T', ' ')}" in shown
