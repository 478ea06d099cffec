"""The event that `receiver hooks render` shows is the one that the worker sends."""

from __future__ import annotations

import pytest

from receiver.deliveries import Subscription
from receiver.delivery.attempt import DeliveryWorker
from receiver.ingest import Ingest
from receiver.serializers.outputs import notice_of_history
from receiver.stores.base import Store
from receiver.tasks import Status, Task
from tests.support.samples import body, callback

NOW = 1_765_519_840_000
FINAL = {
    "succeeded": body(),
    "failed": body("failed", task_status_msg="The face is hidden."),
}


@pytest.mark.parametrize("status", ["processing", "succeeded", "failed", "given_up"])
def test_the_event_of_a_task_is_that_of_its_delivery(store: Store, status: str) -> None:
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW, reference="ORDER-7"))
    everything = Subscription("mail", frozenset({"processing", *FINAL, "given_up"}))
    ingest = Ingest(store, [everything])
    ingest.accept(callback(body("processing")))
    if status in FINAL:
        ingest.accept(callback(FINAL[status]))
    if status == "given_up":
        store.inbox.give_up("task-1", NOW, [everything])
    claimed = {d.status: d for d in store.outbox.claim("worker", NOW * 2, NOW * 2 + 1, 9)}
    sent = DeliveryWorker(store, {}).notice(claimed[status], {})
    history = store.queries.history("task-1")
    transition = next(move for move in history.transitions if move.status == status)
    shown = notice_of_history(history, transition)
    assert shown.as_json() == sent.as_json()
    assert bool(shown.media) is (status == "succeeded")
