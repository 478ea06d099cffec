"""The object that a hook returns is stored, and passed to the hooks that wait for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from receiver.deliveries import Attempt, Notice, State, Subscription
from receiver.delivery.attempt import DeliveryWorker
from receiver.events import Callback, Source
from receiver.filters.where import parse
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.claims import ClaimedDelivery
from receiver.stores.sql.repair import DeliverySelection
from receiver.tasks import Status, Task, Trust
from tests.support.attempts import make_attempt, notice_source
from tests.support.samples import body, callback, subscription

LATER = 2_000_000_000_000
SOON = LATER + 10_000
NOW = 1_765_519_851_000
CHAIN = (
    subscription("pictures"),
    subscription("cutout", after="pictures"),
    subscription("shop", after="cutout"),
    subscription("mail"),
)


def claim(store: Store, hook: str) -> ClaimedDelivery:
    """Claim everything that is due, and return the delivery of this hook."""
    return next(one for one in store.outbox.claim("w", LATER, LATER + 9_000, 9) if one.hook == hook)


def end(
    store: Store, delivery: ClaimedDelivery, state: State = State.DELIVERED, **output: Any
) -> None:
    outcome = "delivered" if state is State.DELIVERED else "failed"
    attempt = Attempt(delivery.attempts, LATER, LATER, outcome, "")
    due_at = LATER if state is State.PENDING else None
    assert store.outbox.settle(delivery, attempt, state, due_at, output=output)


def record(store: Store, hooks: tuple[Subscription, ...] = CHAIN) -> None:
    Ingest(store, hooks).accept(callback())


def test_a_hook_receives_the_outputs_of_the_hooks_that_it_waits_for(store: Store) -> None:
    record(store)
    end(store, claim(store, "pictures"))
    end(store, claim(store, "cutout"), url="https://cdn.example/cut.png", size=[3, "é"])
    event = claim(store, "shop").source.notice.as_json()
    assert event["outputs"] == {"cutout": {"url": "https://cdn.example/cut.png", "size": [3, "é"]}}


def test_a_hook_receives_the_output_of_a_hook_that_it_waits_for_indirectly(store: Store) -> None:
    record(store)
    end(store, claim(store, "pictures"), folder="/data")
    end(store, claim(store, "cutout"), url="u")
    outputs = claim(store, "shop").source.notice.outputs
    assert outputs == {"pictures": {"folder": "/data"}, "cutout": {"url": "u"}}


def test_a_hook_that_waits_for_no_other_receives_no_outputs(store: Store) -> None:
    record(store)
    for delivery in store.outbox.claim("w", LATER, LATER + 9_000, 9):
        if delivery.hook == "pictures":
            end(store, delivery, folder="/data")
        else:
            end(store, delivery, State.PENDING)
    (mail,) = [one for one in store.outbox.claim("w", LATER, SOON, 9) if one.hook == "mail"]
    assert "outputs" not in mail.source.notice.as_json()


def test_only_a_successful_attempt_stores_the_output(store: Store) -> None:
    record(store)
    first = claim(store, "pictures")
    end(store, first, State.PENDING, folder="/half")
    assert store.queries.delivery(first.id).output == {}
    again = claim(store, "pictures")
    end(store, again, State.DEAD, folder="/half")
    assert store.queries.delivery(first.id).output == {}
    assert claim(store, "cutout").source.notice.outputs == {}


def test_a_redelivery_replaces_the_output_when_it_succeeds(store: Store) -> None:
    record(store)
    first = claim(store, "pictures")
    end(store, first, version=1)
    store.outbox.redeliver(first.id, LATER)
    assert store.queries.delivery(first.id).output == {"version": 1}
    end(store, claim(store, "pictures"))
    assert store.queries.delivery(first.id).output == {}


def test_outputs_of_another_task_are_not_passed(store: Store) -> None:
    record(store)
    end(store, claim(store, "pictures"), of="task-1")
    Ingest(store, CHAIN).accept(callback(body(), "task-2"))
    for delivery in store.outbox.claim("w", LATER, SOON, 9):
        if (delivery.hook, delivery.task_id) == ("pictures", "task-2"):
            end(store, delivery)
    (other,) = [one for one in store.outbox.claim("w", LATER, SOON, 9) if one.hook == "cutout"]
    assert other.task_id == "task-2"
    assert other.source.notice.outputs == {}


def test_a_damaged_output_is_ignored(store: Store) -> None:
    record(store)
    first = claim(store, "pictures")
    end(store, first, folder="/data")
    store.database.write(
        lambda session: session.execute(
            "update deliveries set output = '[' where hook = 'pictures'"
        )
    )
    assert store.queries.delivery(first.id).output == {}
    assert notice_source(store, claim(store, "cutout")).notice.outputs == {"pictures": {}}


@dataclass
class Returning:
    """A hook that returns this object."""

    name: str
    output: dict[str, Any]
    notices: list[Notice] = field(default_factory=list)

    def send(self, notice: Notice) -> Done:
        self.notices.append(notice)
        return Done("fine", output=self.output)


@pytest.mark.parametrize(("score", "answer"), [(0.97, "fine"), (0.5, "skipped, because")])
def test_a_filter_for_an_output_is_evaluated_before_the_attempt(
    store: Store, score: float, answer: str
) -> None:
    where = parse({"outputs.cutout.score": {"min": 0.9}})
    assert where is not None
    hooks = (subscription("cutout"), subscription("shop", after="cutout", where=where))
    record(store, hooks)
    shop = Returning("shop", {})
    worker = DeliveryWorker(
        store,
        {"cutout": Returning("cutout", {"score": score}), "shop": shop},
        filters=lambda: {"shop": where},
    )
    for hook in hooks:
        assert make_attempt(worker, claim(store, hook.hook)) is State.DELIVERED
    (delivery,) = (one for one in store.lists.deliveries() if one.hook == "shop")
    (attempt,) = store.queries.history("task-1").attempts[delivery.id]
    assert attempt.answer.startswith(answer)
    assert len(shop.notices) == (answer == "fine")


def test_a_skipped_delivery_says_nothing_about_the_endpoint(store: Store) -> None:
    """The hook was not called, so the half-open circuit does not close."""
    where = parse({"outputs.cutout.score": {"min": 0.9}})
    assert where is not None
    record(store, (subscription("cutout"), subscription("shop", after="cutout")))
    end(store, claim(store, "cutout"), score=0.5)
    worker = DeliveryWorker(
        store, {"shop": Returning("shop", {})}, filters=lambda: {"shop": where}, clock=lambda: LATER
    )
    (ready,) = worker.claim()
    ended = worker.attempt(ready)
    assert ended.settlement.state is State.DELIVERED
    assert ended.settlement.change is None


@pytest.mark.parametrize(
    "output",
    [
        {"a": object()},
        {"a": float("nan")},
        {"a": "\ud800"},
        {"a": "\0"},
        {"a": "x" * 17_000},
        ["a"],
    ],
)
def test_a_hook_of_another_package_may_return_anything(store: Store, output: Any) -> None:
    """The hook has done its work, so the delivery succeeds without the output."""
    record(store, (subscription("cutout"),))
    worker = DeliveryWorker(store, {"cutout": Returning("cutout", output)})
    (delivery,) = store.outbox.claim("w", LATER, SOON, 9)
    assert make_attempt(worker, delivery) is State.DELIVERED
    (attempt,) = store.queries.history("task-1").attempts[delivery.id]
    assert attempt.answer.startswith("fine (the object that it returned is not stored: ")
    assert store.queries.delivery(delivery.id).output == {}


def responded(source: Source, status: str = "succeed", **more: Any) -> Callback:
    """Return the response to a request of ours."""
    raw = json.dumps({"code": 0, "data": json.loads(body(status, **more))}).encode()
    return callback(raw, source=source, trust=Trust.QUERIED)


def outputs_of(delivery: ClaimedDelivery) -> Any:
    return delivery.source.notice.outputs


def test_a_delivery_that_is_created_later_receives_the_outputs(store: Store) -> None:
    """`redeliver --since` for a new hook that waits for one that has ended already."""
    record(store, (subscription("cutout"),))
    end(store, claim(store, "cutout"), url="u")
    shop = subscription("shop", after="cutout")
    assert store.repair.catch_up(shop, 0, LATER).changed == 1
    delivery = claim(store, "shop")
    assert delivery.after == "cutout"
    assert outputs_of(delivery) == {"cutout": {"url": "u"}}


def test_a_hook_that_matches_only_with_late_media_receives_the_outputs(store: Store) -> None:
    where = parse({"media.index": "1"})
    hooks = (subscription("cutout"), subscription("shop", after="cutout", where=where))
    result: dict[str, Any] = {"images": [{"index": 0, "url": "https://cdn.example/0.png"}, None]}
    ingest = Ingest(store, hooks)
    ingest.accept(callback(body(task_result=result)))
    end(store, claim(store, "cutout"), url="u")
    result["images"][1] = {"index": 1, "url": "https://cdn.example/1.png"}
    ingest.accept(responded(Source.QUERY, task_result=result))
    assert outputs_of(claim(store, "shop")) == {"cutout": {"url": "u"}}


AROUND = (
    subscription("cutout"),
    subscription("check", after="cutout", where=parse({"media.kind": "video"})),
    subscription("shop", after="check", ahead=("cutout",)),
)


def test_a_hook_waits_for_the_next_hook_ahead_if_one_between_does_not_receive_the_event(
    store: Store,
) -> None:
    record(store, AROUND)
    waits = {one.hook: (one.after, one.due_at is None) for one in store.lists.deliveries()}
    assert waits == {"cutout": (None, False), "shop": ("cutout", True)}
    end(store, claim(store, "cutout"), url="u")
    assert outputs_of(claim(store, "shop")) == {"cutout": {"url": "u"}}


def test_a_delivery_that_is_created_later_waits_for_the_next_hook_ahead(store: Store) -> None:
    record(store, AROUND[:2])
    assert store.repair.catch_up(AROUND[2], 0, LATER).changed == 1
    end(store, claim(store, "cutout"), url="u")
    assert outputs_of(claim(store, "shop")) == {"cutout": {"url": "u"}}


def test_a_corrected_result_has_no_outputs_of_the_wrong_result(store: Store) -> None:
    """`label` does not receive the correction, so its output is about the other result."""
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW))
    first = parse({"corrected": False})
    hooks = (
        subscription("cutout"),
        subscription("label", where=first),
        subscription("shop", after="cutout"),
    )
    ingest = Ingest(store, hooks)
    ingest.accept(callback(body(task_id="wrong")))
    for delivery in store.outbox.claim("w", LATER, SOON, 9):
        end(store, delivery, about="wrong")
    end(store, claim(store, "shop"))
    ingest.accept(responded(Source.CREATE, "submitted", task_id="right"))
    ingest.accept(responded(Source.QUERY, task_id="right"))
    end(store, claim(store, "cutout"), about="right")
    shop = claim(store, "shop")
    assert shop.source.delivery["corrected"]
    assert outputs_of(shop) == {"cutout": {"about": "right"}}


@pytest.mark.parametrize("how", ["together", "in steps", "in order", "in reverse order"])
def test_a_redelivered_delivery_waits_for_the_redelivered_one_ahead(store: Store, how: str) -> None:
    """Otherwise, both begin at the same time, and the second one lacks the output again."""
    hooks = (
        subscription("shop", after="cutout"),
        subscription("mail", after="cutout", wait_ms=120_000),
        subscription("cutout"),
    )
    record(store, hooks)
    for _ in range(2):  # `shop` is due when `cutout` has ended
        for delivery in store.outbox.claim("w", LATER, SOON, 9):
            end(store, delivery, State.DEAD)
    if how == "together":
        assert store.repair.redeliver_all(DeliverySelection(), LATER, hooks).changed == 3
    elif how == "in steps":  # `shop` is in a step before the one with `cutout`
        step = store.repair.redeliver_all(DeliverySelection(), LATER, hooks, limit=1)
        while step.next is not None:
            step = store.repair.redeliver_all(
                DeliverySelection(), LATER, hooks, after=step.next, limit=1
            )
    else:
        dead = {one.hook: one.id for one in store.lists.deliveries()}
        order = ["cutout", "shop", "mail"]
        for hook in order if how == "in order" else reversed(order):
            store.outbox.redeliver(dead[hook], LATER, hooks)
    due = {one.hook: one.due_at for one in store.lists.deliveries()}
    assert due == {"cutout": LATER, "shop": None, "mail": LATER + 120_000}
    end(store, claim(store, "cutout"), url="u")
    for delivery in store.outbox.claim("w", LATER, SOON, 9):
        assert outputs_of(delivery) == {"cutout": {"url": "u"}}
        end(store, delivery)
    assert {one.state for one in store.lists.deliveries()} == {State.DELIVERED}


def test_a_redelivered_delivery_receives_the_output_of_a_hook_that_it_waits_for_now(
    store: Store,
) -> None:
    """The hooks file was changed after the deliveries had ended."""
    record(store, (subscription("cutout"), subscription("shop")))
    for delivery in store.outbox.claim("w", LATER, SOON, 9):
        end(store, delivery, url="u")
    shop = next(one.id for one in store.lists.deliveries() if one.hook == "shop")
    store.outbox.redeliver(shop, LATER, (subscription("shop", after="cutout"),))
    assert outputs_of(claim(store, "shop")) == {"cutout": {"url": "u"}}


@pytest.mark.parametrize("order", [("cutout", "shop"), ("shop", "cutout")])
def test_no_two_deliveries_wait_for_each_other_although_the_file_was_reversed(
    store: Store, order: tuple[str, str]
) -> None:
    record(store, (subscription("cutout"), subscription("shop", after="cutout")))
    end(store, claim(store, "cutout"))
    end(store, claim(store, "shop"))
    reversed_hooks = (subscription("cutout", after="shop"), subscription("shop"))
    ids = {one.hook: one.id for one in store.lists.deliveries()}
    for hook in order:
        store.outbox.redeliver(ids[hook], LATER, reversed_hooks)
    end(store, claim(store, "shop"))
    end(store, claim(store, "cutout"))


def test_a_running_or_retried_delivery_does_not_wait_for_a_redelivered_one(store: Store) -> None:
    """Its lease, and the time of its retry, stay as they are."""
    hooks = (
        subscription("cutout"),
        subscription("shop", after="cutout"),
        subscription("copy", after="cutout"),
    )
    record(store, hooks)
    first = claim(store, "cutout")
    end(store, first, url="u")
    for delivery in store.outbox.claim("w", LATER, SOON, 9):
        if delivery.hook == "copy":
            end(store, delivery, State.PENDING)
    store.outbox.redeliver(first.id, LATER + 1, hooks)
    due = {one.hook: (one.state, one.due_at) for one in store.lists.deliveries()}
    assert due == {
        "cutout": (State.PENDING, LATER + 1),
        "shop": (State.CLAIMED, SOON),
        "copy": (State.PENDING, LATER),
    }


def test_a_hook_does_not_receive_what_it_returned_before(store: Store) -> None:
    record(store)
    end(store, claim(store, "pictures"))
    first = claim(store, "cutout")
    end(store, first, url="u")
    store.outbox.redeliver(first.id, LATER, CHAIN)
    assert outputs_of(claim(store, "cutout")) == {}


def test_a_redelivered_delivery_does_not_wait_for_one_that_has_ended(store: Store) -> None:
    hooks = (subscription("cutout"), subscription("shop", after="cutout"))
    record(store, hooks)
    end(store, claim(store, "cutout"), url="u")
    end(store, claim(store, "shop"), State.DEAD)
    (dead,) = store.lists.deliveries(state=State.DEAD)
    store.outbox.redeliver(dead.id, LATER, hooks)
    assert outputs_of(claim(store, "shop")) == {"cutout": {"url": "u"}}
