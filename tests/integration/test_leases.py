"""The SQLite worker wakes at a commit, writes nothing when idle, and survives store errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from receiver.deliveries import Notice
from receiver.delivery import attempt, leases
from receiver.delivery.attempt import DeliveryWorker
from receiver.errors import StoreUnavailable
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.stores.sql.hook_queues import UNLIMITED, Admission
from receiver.stores.sql.outbox import Outbox, Settlement
from receiver.stores.sqlite import SqliteStore, writer
from receiver.stores.sqlite.database import SqliteDatabase
from receiver.stores.sqlite.writer import file_lock
from tests.support.dispatching import Start, delivered, dispatchers
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback, subscription


@pytest.fixture
def start(store: SqliteStore) -> Iterator[Start]:
    with dispatchers(store) as started:
        yield started


class Naps:
    """Counts the waits of the worker: each begins when it has found nothing to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.ended = 0
        original = SqliteDatabase.wait_for_commit

        def wait_for_commit(store: SqliteDatabase, timeout: float, stop: threading.Event) -> None:
            self.begun += 1
            original(store, timeout, stop)
            self.ended += 1

        monkeypatch.setattr(SqliteDatabase, "wait_for_commit", wait_for_commit)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Naps:
    return Naps(monkeypatch)


def test_a_commit_of_another_process_wakes_the_worker(
    store: SqliteStore, start: Start, tmp_path: Path, naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deliveries are made although a single wait would exceed the patience of the test."""
    monkeypatch.setattr(leases, "LONGEST_NAP", 10 * PATIENCE)
    monkeypatch.setattr(attempt, "UPKEEP_EVERY", 10 * PATIENCE)
    start(lambda _: Done("ok"))
    other = SqliteStore(tmp_path / "receiver.db")  # like the web process
    for number in range(20):
        wait_until(lambda: naps.begun > naps.ended)
        Ingest(other, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
        wait_until(lambda: delivered(store) == number + 1)  # noqa: B023 - called at once
    other.close()


@pytest.mark.parametrize("seconds", [0.004, 0.02, 0.1])
def test_a_wait_ends_when_its_time_is_over(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """So a delivery that becomes due is not late by the interval of the polling."""

    class Clock(threading.Event):
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            self.now += timeout
            return False

    clock = Clock()
    store.database.wait_for_commit(0, threading.Event())  # an earlier commit
    monkeypatch.setattr("receiver.stores.sqlite.database.time", clock)
    store.database.wait_for_commit(seconds, clock)
    assert clock.now == pytest.approx(seconds)


def test_an_idle_worker_writes_almost_nothing(
    start: Start, naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for work and renews leases fifty times, and commits only its heartbeat."""
    monkeypatch.setattr(leases, "LONGEST_NAP", 0.01)
    monkeypatch.setattr(attempt, "UPKEEP_EVERY", 0)
    monkeypatch.setattr(attempt, "SEEN_EVERY", 10 * PATIENCE)
    commits: list[Path] = []

    def counted(path: Path) -> AbstractContextManager[None]:
        commits.append(path)
        return file_lock(path)

    monkeypatch.setattr(writer, "file_lock", counted)
    start(lambda _: Done("ok"))
    wait_until(lambda: naps.ended > 50)
    assert len(commits) == 1  # the heartbeat


def test_a_slot_is_not_open_while_its_thread_claims_the_next_delivery(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, the dispatcher would claim in transactions of its own."""
    called, may_end = threading.Event(), threading.Event()

    class Mail:
        def send(self, _: Notice) -> Done:
            called.set()
            assert may_end.wait(PATIENCE)
            return Done("ok")

    worker = DeliveryWorker(store, {"mail": Mail()}, concurrency=1)  # type: ignore[dict-item]
    exchange, slots = Outbox.exchange, []

    def noted(self: Outbox, settlements: Sequence[Settlement], *rest: Any) -> Any:
        if settlements:
            slots.append((worker.slots.free, worker.open_slots))
        return exchange(self, settlements, *rest)

    monkeypatch.setattr(Outbox, "exchange", noted)
    Ingest(store, [subscription("mail")]).accept(callback())
    assert worker.wait_for_slot(10 * PATIENCE)
    (ready,) = worker.claim()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(worker.run_slot, ready, threading.Event())
        assert called.wait(PATIENCE)
        assert not worker.wait_for_slot(0.01)
        waiting = pool.submit(worker.wait_for_slot, 10 * PATIENCE)
        may_end.set()
        assert waiting.result(PATIENCE)
    assert slots == [(1, 0)]
    assert worker.open_slots == 1


def test_the_worker_survives_an_unavailable_record(
    store: SqliteStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failures = Outbox.next_due_at, [StoreUnavailable("gone")] * 2

    def next_due_at(self: Outbox, now: int, admission: Admission = UNLIMITED) -> int | None:
        if failures:
            raise failures.pop()
        return original(self, now, admission)

    monkeypatch.setattr(Outbox, "next_due_at", next_due_at)
    Ingest(store, [subscription("mail")]).accept(callback())
    start(lambda _: Done("ok"))
    wait_until(lambda: delivered(store) == 1)
