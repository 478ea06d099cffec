"""Every dispatcher: survives what hooks raise, leaves failing endpoints alone, stops cleanly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from receiver.clock import now_ms
from receiver.deliveries import Notice, State
from receiver.endpoints import AlertKind, Circuit
from receiver.errors import EndpointGone, TemporaryFailure
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from tests.support.dispatching import Running, Send, delivered, until
from tests.support.samples import body, callback, subscription

Start = Callable[..., Running]


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


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.dispatch.procrastinate.EVERY", "* * * * * *")
    monkeypatch.setattr("receiver.dispatch.procrastinate.LOOK_EVERY", 0.05)


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    running: list[Running] = []

    def make(send: Send, **more: float) -> Running:
        running.append(Running(store, send, **more))
        return running[-1]

    yield make
    for one in running:
        one.signal.set()
        one.thread.join(20)


def test_what_a_hook_raises_is_a_failed_attempt(store: Store, start: Start) -> None:
    def send(_: Notice) -> Done:
        raise ZeroDivisionError("a mistake of ours")

    Ingest(store, [subscription("mail")]).accept(callback())
    start(send)
    until(lambda: store.deliveries()[0].state is State.DEAD)
    attempts = store.history("task-1").attempts[1]
    assert [attempt.outcome for attempt in attempts] == ["failed"] * 3
    assert "ZeroDivisionError: a mistake of ours" in attempts[0].answer
    Ingest(store, [subscription("mail")]).accept(callback(body(), "task-2"))  # it still works
    until(lambda: len(store.deliveries(state=State.DEAD)) == 2)


def test_deliveries_run_side_by_side(store: Store, start: Start) -> None:
    together = threading.Barrier(4, timeout=10)

    def send(_: Notice) -> Done:
        together.wait()
        return Done("ok")

    for number in range(4):
        Ingest(store, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
    start(send, concurrency=4)
    until(lambda: delivered(store) == 4)


def test_a_slow_hook_keeps_its_lease(
    store: Store, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.dispatch.attempts.LEASE", 0.4)
    monkeypatch.setattr("receiver.dispatch.attempts.UPKEEP_EVERY", 0.1)
    monkeypatch.setattr("receiver.dispatch.leases.LONGEST_NAP", 0.05)
    calls: list[str] = []

    def send(notice: Notice) -> Done:
        calls.append(notice.id)
        time.sleep(1.5)
        return Done("ok")

    Ingest(store, [subscription("mail")]).accept(callback())
    start(send)
    start(send)  # a second worker waits for the lease to run out
    until(lambda: delivered(store) == 1)
    assert len(calls) == 1


def test_what_a_dead_worker_held_is_delivered_by_another(
    store: Store, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.dispatch.attempts.UPKEEP_EVERY", 0.05)
    monkeypatch.setattr("receiver.dispatch.leases.LONGEST_NAP", 0.05)
    Ingest(store, [subscription("mail")]).accept(callback())
    now = 1_765_519_860_000
    assert len(store.claim("dead", now, now + 1, 1)) == 1
    start(lambda _: Done("ok"))
    until(lambda: delivered(store) == 1)
    outcomes = [attempt.outcome for attempt in store.history("task-1").attempts[1]]
    assert outcomes == ["abandoned", "delivered"]


def test_stopping_lets_what_runs_end(store: Store, start: Start) -> None:
    entered, go = threading.Event(), threading.Event()

    def send(_: Notice) -> Done:
        entered.set()
        assert go.wait(10)
        return Done("ok")

    for number in range(6):
        Ingest(store, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
    running = start(send, concurrency=2)
    assert entered.wait(10)
    threading.Timer(0.3, go.set).start()
    assert running.stop() is True
    assert delivered(store) == 2  # and nothing new was begun
    assert len(store.deliveries(state=State.PENDING)) == 4


def test_an_attempt_that_does_not_end_is_left_to_its_lease(store: Store, start: Start) -> None:
    entered, go = threading.Event(), threading.Event()

    def send(_: Notice) -> Done:
        entered.set()
        go.wait(10)
        return Done("ok")

    Ingest(store, [subscription("mail")]).accept(callback())
    running = start(send, drain=0.3)
    assert entered.wait(10)
    assert running.stop() is False
    assert store.deliveries()[0].state is State.CLAIMED
    go.set()


def test_an_endpoint_that_hangs_does_not_starve_the_others(store: Store, start: Start) -> None:
    """Forty deliveries wait for one that takes half a second to fail; another hook's goes out."""

    def send(_: Notice) -> Done:
        time.sleep(0.5)
        raise TemporaryFailure("no answer")

    for number in range(40):
        Ingest(store, [subscription("slow")]).accept(callback(body(), f"slow-{number}"))
    running = start(send, concurrency=2)
    until(lambda: store.endpoint("slow").circuit(now_ms()) is not Circuit.CLOSED)
    running.hooks["mail"].send = lambda _: Done("ok")  # type: ignore[method-assign]
    began = time.monotonic()
    Ingest(store, [subscription("mail")]).accept(callback(body(), "quick"))
    until(lambda: delivered(store) == 1)
    took = time.monotonic() - began
    waiting = store.deliveries(hook="slow", state=State.PENDING, limit=99)
    assert len([found for found in waiting if not found.attempts]) > 20
    assert took < 5  # one after another the forty alone take ten


def test_an_endpoint_that_is_slow_and_works_leaves_room_for_others(
    store: Store, start: Start
) -> None:
    """Sixty deliveries of a second each; another hook's goes out among the first of them."""

    def send(_: Notice) -> Done:
        time.sleep(1)
        return Done("ok")

    for number in range(60):
        Ingest(store, [subscription("slow")]).accept(callback(body(), f"slow-{number}"))
    running = start(send, concurrency=2)
    running.hooks["mail"].send = lambda _: Done("ok")
    Ingest(store, [subscription("mail")]).accept(callback(body(), "quick"))
    until(lambda: bool(store.deliveries(hook="mail", state=State.DELIVERED)), 20)
    waiting = store.deliveries(hook="slow", state=State.PENDING, limit=99)
    assert len(waiting) > 30  # one after another they alone take half a minute


def test_a_circuit_opens_and_closes_with_one_alert_each(store: Store, start: Start) -> None:
    works = threading.Event()

    def send(_: Notice) -> Done:
        if works.is_set():
            return Done("ok")
        time.sleep(0.1)
        raise TemporaryFailure("refused")

    for number in range(8):
        Ingest(store, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
    start(send)
    until(lambda: bool(store.endpoint("mail").openings))
    works.set()
    until(lambda: store.endpoints() == [])
    until(lambda: not store.deliveries(state=State.PENDING))
    alerts = store.take_alerts(now_ms(), now_ms() + 60_000)
    assert [alert.kind for alert in alerts] == [AlertKind.PAUSED, AlertKind.RECOVERED]
    assert delivered(store) >= 5  # what waited was delivered; the pause cost it no attempt


def test_a_hook_that_is_gone_is_told_nothing_more(store: Store, start: Start) -> None:
    calls: list[str] = []

    def send(notice: Notice) -> Done:
        calls.append(notice.id)
        raise EndpointGone("it answered 410")

    Ingest(store, [subscription("mail")]).accept(callback())
    start(send)
    until(lambda: len(store.deliveries(state=State.DEAD)) == 1)
    Ingest(store, [subscription("mail")]).accept(callback(body(), "task-2"))
    until(lambda: len(store.deliveries(state=State.DEAD)) == 2)
    assert len(calls) == 1
    (attempt,) = store.history("task-2").attempts[2]
    assert "receiver endpoints resume mail" in attempt.answer
    assert "it answered 410" in attempt.answer


def test_deliveries_of_a_removed_hook_go_dead_and_say_so(store: Store, start: Start) -> None:
    Ingest(store, [subscription("removed")]).accept(callback())
    start(lambda _: Done("ok"))
    until(lambda: len(store.deliveries(state=State.DEAD)) == 1)
    (attempt,) = store.history("task-1").attempts[1]
    assert attempt.answer == "the hook 'removed' is not in the hooks file any more"
    assert store.endpoints() == []  # it says nothing of an endpoint


def test_what_a_hook_says_is_kept_however_odd_it_is(store: Store, start: Start) -> None:
    """PostgreSQL takes no NUL, and neither takes half a character."""

    def send(_: Notice) -> Done:
        raise ValueError("a\0b\ud800c")

    Ingest(store, [subscription("mail")]).accept(callback())
    start(send)
    until(lambda: store.deliveries()[0].state is State.DEAD)
    assert store.history("task-1").attempts[1][0].answer.rstrip().endswith("a b?c")
