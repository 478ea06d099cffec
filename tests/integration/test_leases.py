"""The worker of SQLite: it wakes at a commit, writes nothing when idle, outlives the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from receiver.deliveries import Notice
from receiver.errors import StoreUnavailable
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.support.dispatching import Running, Send, delivered, until
from tests.support.samples import body, callback, subscription

Start = Callable[..., Running]


@pytest.fixture
def start(store: SqliteStore) -> Iterator[Start]:
    running: list[Running] = []

    def make(send: Send, **more: float) -> Running:
        running.append(Running(store, send, **more))
        return running[-1]

    yield make
    for one in running:
        one.signal.set()
        one.thread.join(20)


def test_a_commit_of_another_process_wakes_the_worker(store: SqliteStore, start: Start) -> None:
    """The delivery is made although the longest nap lies far beyond the test's patience."""
    started: list[float] = []

    def send(_: Notice) -> Done:
        started.append(time.monotonic())
        return Done("ok")

    start(send)
    time.sleep(0.3)  # the worker naps
    other = SqliteStore(store._path)  # as the web process has
    waits = []
    for number in range(20):
        Ingest(other, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
        committed = time.monotonic()
        until(lambda: len(started) > number)  # noqa: B023 - called at once
        waits.append(started[-1] - committed)
    other.close()
    # Half of the wakings: one that this machine held up does not decide.
    assert sorted(waits)[10] < 0.05


def test_an_idle_worker_writes_next_to_nothing(store: SqliteStore, start: Start) -> None:
    commits: list[int] = []
    original = store._writer._commit
    store._writer._commit = lambda batch: (commits.append(1), original(batch))[1]  # type: ignore[method-assign,assignment,func-returns-value]
    start(lambda _: Done("ok"))
    time.sleep(1.5)
    assert len(commits) == 1  # that it was seen


def test_the_worker_outlives_an_unavailable_record(
    store: SqliteStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failures = SqliteStore.next_due_at, [StoreUnavailable("gone")] * 2

    def next_due_at(self: SqliteStore, now: int) -> int | None:
        if failures:
            raise failures.pop()
        return original(self, now)

    monkeypatch.setattr(SqliteStore, "next_due_at", next_due_at)
    Ingest(store, [subscription("mail")]).accept(callback())
    start(lambda _: Done("ok"))
    until(lambda: delivered(store) == 1)
