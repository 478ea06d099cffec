"""Deliveries for a hook that is missing from the hooks file, and problems of processes."""

from __future__ import annotations

from receiver.deliveries import State
from receiver.delivery.worker_slots import WorkerSlots
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.activity import ProcessProblem
from receiver.stores.sql.metrics import without_hook
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
LATER = NOW + 60_000


def fill(store: Store, count: int = 1) -> None:
    hooks = [subscription("gone"), subscription("mail"), subscription("chat", after="gone")]
    for number in range(count):
        Ingest(store, hooks).accept(callback(body(), f"task-{number}", received_at=NOW))


def test_deliveries_of_a_missing_hook_are_not_claimed_and_delay_no_other_hook(store: Store) -> None:
    fill(store)
    slots = WorkerSlots(4, is_known=lambda hook: hook != "gone")
    assert [found.hook for found in store.outbox.claim("w", LATER, LATER + 9, 9, slots)] == ["mail"]
    assert store.outbox.next_due_at(LATER, slots) is None  # this worker cannot handle them
    assert store.outbox.next_due_at(LATER) is not None
    assert without_hook(store.metrics.delivery_counts(), ["mail", "chat"]) == {"gone": 1}


def test_deliveries_are_claimed_once_the_hook_is_back(store: Store) -> None:
    fill(store)
    known = {"mail"}
    slots = WorkerSlots(4, is_known=known.__contains__)
    store.outbox.claim("w", LATER, LATER + 9, 9, slots)
    known.add("gone")
    (claimed,) = store.outbox.claim("w", LATER, LATER + 9, 9, slots)
    assert (claimed.hook, claimed.attempts) == ("gone", 1)


def test_dropped_deliveries_are_dead_letters_and_waiting_deliveries_become_due(
    store: Store,
) -> None:
    fill(store, 3)
    assert [store.repair.drop("gone", LATER, limit=2) for _ in range(3)] == [2, 1, 0]
    dead = store.lists.deliveries(state=State.DEAD)
    assert {(found.hook, found.ended_at, found.due_at) for found in dead} == {("gone", LATER, None)}
    assert without_hook(store.metrics.delivery_counts(), ["mail", "chat"]) == {}
    assert {found.due_at for found in store.lists.deliveries(hook="chat")} == {LATER}
    store.outbox.redeliver(dead[0].id, LATER)
    assert without_hook(store.metrics.delivery_counts(), ["mail", "chat"]) == {"gone": 1}


def test_a_claimed_or_finished_delivery_is_not_dropped(store: Store) -> None:
    fill(store)
    store.outbox.claim("w", LATER, LATER + 9, 9)
    assert store.repair.drop("gone", LATER) == 0
    assert store.repair.drop("never", LATER) == 0


def test_a_problem_is_reported_until_it_is_solved_or_the_process_has_ended(store: Store) -> None:
    store.activity.heartbeat("host:1", "worker", NOW)
    assert store.activity.process_problems(0) == []
    store.activity.report_problem("host:1", "worker", "it is wrong", NOW)
    store.activity.report_problem("host:2", "poller", "it is wrong", NOW - 5)
    assert store.activity.process_problems(NOW - 5) == [
        ProcessProblem("host:1", "worker", "it is wrong", NOW)
    ]
    store.activity.heartbeat("host:1", "worker", LATER)  # it is still running
    assert [one.seen_at for one in store.activity.process_problems(NOW)] == [LATER]
    store.activity.report_problem("host:1", "worker", None, LATER)
    assert store.activity.process_problems(NOW) == []
    assert store.activity.last_seen("worker") == LATER
