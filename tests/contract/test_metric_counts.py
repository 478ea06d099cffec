"""Every store adds up the counts of all processes, and counts the open tasks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from receiver.ingest import Ingest
from receiver.observability.metrics import Sample
from receiver.stores.base import Store
from receiver.stores.sql.metrics import OpenTasks
from receiver.tasks import Status, Task
from tests.support.samples import body, callback

NOW = 1_765_519_851_000


def test_counts_of_several_processes_are_added_up(store: Store) -> None:
    names = ("a", "b", "c")

    def add(number: int) -> None:
        for _ in range(10):
            order = names if number % 2 else names[::-1]
            store.metrics.add([Sample(name, ("é", '"'), 0.5) for name in sorted(order)], [])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(6)))
    assert store.metrics.samples() == [Sample(name, ("é", '"'), 30.0) for name in names]


def test_different_labels_are_distinguished(store: Store) -> None:
    store.metrics.add([Sample("a", ("x", "y"), 1), Sample("a", ("xy",), 2), Sample("a", (), 3)], [])
    found = {reading.labels: reading.value for reading in store.metrics.samples()}
    assert found == {("x", "y"): 1, ("xy",): 2, (): 3}


def test_an_instant_never_gets_earlier(store: Store) -> None:
    for value in (5.0, 9.25, 7.0):
        store.metrics.add([], [Sample("seen", ("kling",), value)])
    assert store.metrics.samples() == [Sample("seen", ("kling",), 9.25)]


def test_open_tasks_are_counted_until_they_end_or_are_given_up(store: Store) -> None:
    for number in range(4):
        at = NOW + number * 1000
        task = Task(f"t{number}", "kling", Status.CREATED, NOW, NOW, deadline_at=at)
        task = replace(task, expects_callback=number > 0)
        store.inbox.create_task(task)
    store.inbox.create_task(Task("m", "modellix", Status.CREATED, NOW, NOW, deadline_at=NOW + 1))
    assert sorted(store.metrics.open_tasks(NOW + 1000), key=lambda found: found.provider) == [
        OpenTasks("kling", 4, 3, 2),
        OpenTasks("modellix", 1, 0, 1),
    ]
    Ingest(store).accept(callback(body("succeed"), "t0"))
    Ingest(store).accept(callback(body("failed"), "t0"))
    # ended, but nevertheless due for a query
    assert store.queries.task("t0").deadline_at is not None
    store.inbox.give_up("t1", NOW, ())
    store.inbox.give_up("m", NOW, ())
    assert store.metrics.open_tasks(NOW) == [OpenTasks("kling", 2, 2, 0)]
