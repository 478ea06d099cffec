"""`receiver tail` as a process: it prints new events, and exits cleanly."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver.cli import main
from receiver.deliveries import Attempt, State
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support import processes
from tests.support.forked_children import PopenOfServer
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body, callback, subscription

NOW = 1_765_519_851_000


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    (tmp_path / "hooks.toml").touch()


def happen(store: SqliteStore, task: str, reference: str | None = None) -> None:
    """Let a task succeed, and its delivery fail once."""
    store.inbox.create_task(Task(task, "kling", Status.CREATED, NOW, NOW, reference=reference))
    Ingest(store, [subscription("mail")]).accept(callback(body(task_id=f"at-{task}"), task))
    (delivery,) = store.outbox.claim("w", NOW + 1000, NOW + 2000, 1)
    attempt = Attempt(1, NOW, NOW + 1, "failed", "550 no such user\x1b[2J")
    store.outbox.settle(delivery, attempt, State.DEAD, None)


class Following:
    """The running command."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._kept = b""

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._kept:
                assert selector.select(PATIENCE), "it prints nothing"
                self._kept += os.read(self.process.stdout.fileno(), 65536)
        line, _, self._kept = self._kept.partition(b"\n")
        return line.decode()

    def events(self, number: int) -> list[tuple[str, str, str]]:
        documents = [json.loads(self.line()) for _ in range(number)]
        return [(one["event"], one["task"], one["outcome"]) for one in documents]

    def end(self, number: int) -> tuple[int, bytes, bytes]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, self._kept + out, err


@contextmanager
def following(*arguments: str) -> Iterator[Following]:
    process = PopenOfServer(
        [sys.executable, "-m", "receiver", "tail", *arguments],
        env=processes.forkable(os.environ),  # also without PYTHONUNBUFFERED
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Following(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_prints_what_happens_and_exits_cleanly(store: SqliteStore, number: int) -> None:
    happen(store, "past")
    past = [("move", "past", "created"), ("move", "past", "succeeded")]
    past += [("callback", "past", "recorded"), ("attempt", "past", "failed")]
    with following("--json") as tail:
        assert sorted(tail.events(4)) == sorted(past)
        happen(store, "new")
        new = {(event, "new", outcome) for event, _, outcome in past}
        assert set(tail.events(4)) == new
        assert tail.end(number) == (0, b"", b"")


def test_filters_apply_to_new_events(store: SqliteStore) -> None:
    wanted = ("--only", "attempt", "--only", "callback", "--reference", "ORDER-7", "--json")
    happen(store, "past", "ORDER-7")
    with following("-n", "1", *wanted) as tail:
        assert tail.events(1) == [("attempt", "past", "failed")]
        happen(store, "other", "ORDER-8")
        happen(store, "meant", "ORDER-7")
        assert sorted(tail.events(2)) == [
            ("attempt", "meant", "failed"),
            ("callback", "meant", "recorded"),
        ]
        assert tail.end(signal.SIGINT) == (0, b"", b"")


@pytest.mark.parametrize("kind", ["status", "move"])
def test_a_status_change_is_shown_as_status(store: SqliteStore, kind: str) -> None:
    happen(store, "task-1")
    with following("--only", kind, "-n", "5") as tail:
        tail.line()
        shown = [tail.line().split("\t")[1] for _ in range(2)]
        assert tail.end(signal.SIGINT)[0] == 0
    assert shown == ["status", "status"]


def test_a_line_cannot_control_the_terminal(store: SqliteStore) -> None:
    happen(store, "task-1", "ORDER-7")
    with following("--hook", "mail", "-n", "5") as tail:
        assert tail.line().split("\t")[:3] == ["when", "kind", "task"]
        line = tail.line()
        assert tail.end(signal.SIGINT)[0] == 0
    for fact in ("attempt", "task-1", "ORDER-7", "mail succeeded failed", "550 no such user"):
        assert fact in line
    assert "\x1b" not in line


def test_a_closed_pipe_ends_tail(store: SqliteStore) -> None:
    happen(store, "past")
    with following("--json", "-n", "1") as tail:
        tail.line()
        assert tail.process.stdout is not None
        tail.process.stdout.close()
        tail.process.stdout = None
        happen(store, "new")
        assert tail.process.wait(PATIENCE) == 1
        assert tail.process.stderr is not None
        with tail.process.stderr as said:
            assert said.read() == b""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["tail", *arguments])


def test_usage_errors_are_reported(tmp_path: Path) -> None:
    refused = run("--only", "everything")
    assert (refused.exit_code, "'status'" in refused.stderr) == (2, True)
    assert run("-n", "many").exit_code == 2
    done = run()
    assert (done.exit_code, "run: receiver migrate" in done.stderr) == (1, True)
    assert not (tmp_path / "receiver.db").exists()
