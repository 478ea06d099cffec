"""A worker that stops renews the leases of running attempts, so that no other begins them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from receiver.deliveries import Notice, State
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from tests.support.dispatching import Running
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import callback, subscription


@pytest.fixture(params=["sqlite", "postgres"])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    fresh: Callable[[], str],
    migrated: Callable[[Path], Store],
) -> Iterator[Store]:
    if request.param == "sqlite":
        made = migrated(tmp_path / "receiver.db")
    else:
        made = PostgresStore(fresh())
    yield made
    made.close()


def test_a_running_attempt_keeps_its_lease_while_the_worker_stops(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.delivery.procrastinate.FETCH_EVERY", 0.05)
    monkeypatch.setattr("receiver.delivery.attempt.UPKEEP_EVERY", 0.05)
    entered, go = threading.Event(), threading.Event()
    ends: set[int | None] = set()

    def send(_: Notice) -> Done:
        entered.set()
        go.wait(PATIENCE)
        return Done("ok")

    def is_renewed() -> bool:
        ends.add(store.lists.deliveries()[0].due_at)
        return len(ends) > 3  # the round in which it was stopped renews once at most

    Ingest(store, [subscription("mail")]).accept(callback())
    running = Running(store, send)
    try:
        assert entered.wait(PATIENCE)
        running.signal.set()
        wait_until(is_renewed)
    finally:
        running.signal.set()
        go.set()
        running.thread.join(PATIENCE)
    assert running.drained == [True]
    assert store.lists.deliveries()[0].state is State.DELIVERED
