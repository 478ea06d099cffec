"""Small copies of the pictures that were sent are stored with the task, and erased with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.deliveries import Attempt, State
from receiver.errors import NotFound
from receiver.ingest import Ingest
from receiver.maintenance.forget import forget
from receiver.maintenance.prune import prune
from receiver.stores.base import Store
from receiver.tasks import Status, Task
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
DAY = 86_400_000
PICTURES = {"human": b"\xff\xd8\x00 a person", "cloth": b"\xff\xd8 a shirt", "cloth2": b"a skirt"}
only_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # the test reads the file


def put(store: Store, *tasks: str, at: int = NOW) -> None:
    for task in tasks:
        store.inbox.create_task(
            Task(task, "kling", Status.CREATED, at, at, reference=f"ORDER-{task}")
        )
        store.inbox.keep_inputs(task, PICTURES)


def end(store: Store, task: str, at: int = NOW) -> None:
    Ingest(store).accept(callback(body(), task, received_at=at))


def test_inputs_are_stored_by_name(store: Store) -> None:
    put(store, "a", "b")
    store.inbox.keep_inputs("b", {"human": b"another"})
    assert store.queries.inputs("a") == PICTURES
    assert store.queries.inputs("b") == {**PICTURES, "human": b"another"}


def test_without_inputs_nothing_is_stored(store: Store) -> None:
    store.inbox.create_task(Task("a", "kling", Status.CREATED, NOW, NOW))
    store.inbox.keep_inputs("a", {})
    assert store.queries.inputs("a") == {}
    assert store.queries.inputs("nobody") == {}


def test_inputs_of_an_unknown_task_are_refused(store: Store) -> None:
    with pytest.raises(NotFound, match="no task nobody"):
        store.inbox.keep_inputs("nobody", PICTURES)


def test_forgetting_erases_the_inputs(store: Store) -> None:
    put(store, "a", "b")
    end(store, "a")
    forget(store, "a")
    assert store.queries.inputs("a") == {}
    assert store.queries.inputs("b") == PICTURES


def test_inputs_of_a_forgotten_task_are_not_stored(store: Store) -> None:
    store.inbox.create_task(Task("a", "kling", Status.CREATED, NOW, NOW))
    store.erasures.close_task("a", NOW)
    store.inbox.keep_inputs("a", PICTURES)
    assert store.queries.inputs("a") == {}


@only_sqlite
@pytest.mark.parametrize("erase", [forget, lambda store, _: list(prune(store, NOW + 1))])
def test_no_byte_of_erased_inputs_remains_in_the_file(
    store: Store, tmp_path: Path, erase: Callable[[Store, str], object]
) -> None:
    def is_there() -> bool:
        files = sorted(tmp_path.glob("receiver.db*"))
        return any(b" a person" in path.read_bytes() for path in files)

    put(store, "a")
    store.inbox.give_up("a", NOW, [])
    assert is_there()
    erase(store, "a")
    assert not is_there()


def test_inputs_are_pruned_with_the_payloads(store: Store) -> None:
    put(store, "a")
    end(store, "a")
    steps = list(prune(store, NOW + 1))
    assert (sum(step.callbacks for step in steps), sum(step.inputs for step in steps)) == (1, 3)
    assert store.queries.inputs("a") == {}


def test_inputs_are_pruned_without_any_payload(store: Store) -> None:
    """This concerns tasks whose provider was never reached, or that were given up."""
    put(store, "a")
    store.inbox.give_up("a", NOW, [])
    list(prune(store, NOW + 1))
    assert store.queries.inputs("a") == {}


def test_inputs_of_open_and_recent_tasks_are_not_pruned(store: Store) -> None:
    put(store, "open", "young")
    end(store, "young", NOW + DAY)
    list(prune(store, NOW + DAY))
    assert store.queries.inputs("open") == store.queries.inputs("young") == PICTURES


@pytest.mark.parametrize("state", [State.PENDING, State.CLAIMED, State.DEAD])
def test_undelivered_inputs_are_not_pruned(store: Store, state: State) -> None:
    put(store, "a")
    Ingest(store, [subscription("mail")]).accept(callback(body(), "a"))
    (delivery,) = store.outbox.claim("w", NOW, NOW + 10_000, 1)
    if state is not State.CLAIMED:
        due_at = NOW if state is State.PENDING else None
        store.outbox.settle(delivery, Attempt(1, NOW, NOW, "failed", "no"), state, due_at)
    list(prune(store, NOW + DAY))
    assert store.queries.inputs("a") == PICTURES
    list(prune(store, NOW + DAY, dead_too=True))
    assert store.queries.inputs("a") == ({} if state is State.DEAD else PICTURES)


def test_pruning_proceeds_in_steps_and_skips_inputs_that_are_needed(store: Store) -> None:
    tasks = [f"task-{number}" for number in range(9)]
    put(store, *tasks)
    for task in tasks[1::3] + tasks[2::3]:
        end(store, task)
    step, changed, rounds = store.retention.prune_inputs(NOW + DAY, limit=2), 0, 0
    while True:
        changed, rounds = changed + step.changed, rounds + 1
        if step.next is None:
            break
        step = store.retention.prune_inputs(NOW + DAY, after=step.next, limit=2)
    assert (changed, rounds) == (18, 5)
    assert [bool(store.queries.inputs(task)) for task in tasks] == [True, False, False] * 3


def test_pruning_reads_only_old_inputs(store: Store) -> None:
    put(store, "old")
    put(store, *(f"young-{number}" for number in range(9)), at=NOW + DAY)
    assert store.retention.prune_inputs(NOW + DAY, limit=2).next is None


def test_names_of_inputs_are_found_by_task_in_the_order_of_sending(store: Store) -> None:
    sent = {"cloth": b"c", "cloth2": b"d", "human": b"h"}
    for task in ("one", "two"):
        store.inbox.create_task(Task(task, "kling", Status.CREATED, 1, 1))
    store.inbox.keep_inputs("one", sent)
    assert store.queries.names_of_inputs(["one", "two"]) == {"one": ["human", "cloth", "cloth2"]}
    assert store.queries.names_of_inputs([]) == {}
