"""A worker's background tasks continue after errors, and end with the worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.clock import now_ms
from receiver.deliveries import Attempt, State
from receiver.delivery.chores import Chore, run_chores
from receiver.endpoints import AlertKind, Endpoint
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.maintenance.prune import prune
from receiver.stores.base import Store
from receiver.stores.sqlite import SqliteStore
from sandbox.server import Sandbox
from tests.support.installation import Installation
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback, subscription

DAY = 86_400_000


def test_a_chore_that_breaks_is_done_again() -> None:
    stop, rounds = threading.Event(), []
    errors = [StoreUnavailable("the disk is full"), ZeroDivisionError("a mistake of ours")]

    def run() -> None:
        rounds.append(1)
        if errors:
            raise errors.pop()
        stop.set()

    with run_chores([Chore("test", 0.01, run)], stop):
        assert stop.wait(PATIENCE)
    assert len(rounds) == 3


def test_chores_end_when_the_worker_does() -> None:
    stop = threading.Event()
    with run_chores([Chore("a-chore", 0.01, lambda: None)], stop):
        stop.set()
    wait_until(lambda: all(thread.name != "a-chore" for thread in threading.enumerate()))


def test_pruning_takes_callbacks_meanwhile_and_returns_the_space(
    store: SqliteStore, tmp_path: Path
) -> None:
    old = now_ms() - 40 * DAY
    for number in range(450):
        raw = body("succeed", padding="x" * 8_000)
        Ingest(store).accept(callback(raw, f"old-{number}", received_at=old))
    store.database.shrink(0)
    before = (tmp_path / "receiver.db").stat().st_size
    steps, taken = 0, 0
    for step in prune(store, now_ms() - 30 * DAY):
        steps += 1
        Ingest(store).accept(callback(body(), f"new-{steps}", received_at=now_ms()))
        taken += step.callbacks
    assert taken == 450
    assert steps == 4  # of 200, and one for stored inputs
    assert (tmp_path / "receiver.db").stat().st_size < before / 4
    assert store.lists.callbacks(task_id="new-1")[0].callback.body


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with Sandbox(pace=0.1) as sandbox:
        made = Installation(tmp_path, sandbox)
        file = tmp_path / "hooks.toml"
        file.write_text(file.read_text().replace('"mail"\n', '"mail"\nalerts = true\n'))
        made.migrate()
        yield made
        made.close()


def erase_under_a_reader(store: Store, task: str) -> None:
    """Erase a task while a reader keeps the old data in the files; then end the reader."""
    Ingest(store).accept(callback(body(), task))
    with store.database.reading() as session:
        session.execute("begin")
        session.execute("select count(*) from tasks").fetchall()
        store.erasures.close_task(task, now_ms())
        store.erasures.erase(task, now_ms())
        session.execute("rollback")


def test_people_are_told_by_mail_and_old_payloads_go(installation: Installation) -> None:
    """A worker process with RETENTION, and an endpoint that has just been paused."""
    store = installation.store
    Ingest(store).accept(callback(body(), "old", received_at=now_ms() - 40 * DAY))
    installation.environment["RETENTION"] = "30d"
    Ingest(store, [subscription("gone")]).accept(callback())
    now = now_ms()
    (delivery,) = store.outbox.claim("w", now, now + 60_000, 1)
    attempt = Attempt(1, now, now, "failed", "no answer")
    endpoint = Endpoint("gone", 5, now, 1, now + 60_000, said="no answer within 15 s")
    change = (endpoint, AlertKind.PAUSED)
    store.outbox.settle(delivery, attempt, State.DEAD, None, change=lambda _: change)
    erase_under_a_reader(store, "old-too")
    assert store.erasures.unfinished() is not None
    installation.start("worker", "receiver", "worker")
    wait_until(lambda: store.erasures.unfinished() is None, installation.logs)
    wait_until(installation.sandbox.mails, installation.logs)
    wait_until(lambda: not store.lists.callbacks(task_id="old")[0].callback.body, installation.logs)
    (mail,) = installation.sandbox.mails()
    assert 'The hook "gone" is paused' in mail.headers["subject"]
    assert installation.stop("worker") == 0
    assert len(installation.sandbox.mails()) == 1
