"""Every store evaluates filters when it writes deliveries, whatever caused the transition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from receiver import providers
from receiver.deliveries import Attempt, Delivery, Notice, State, Subscription
from receiver.delivery.attempt import DeliveryWorker
from receiver.errors import NotTheProtocol
from receiver.events import Callback, Source
from receiver.filters.where import EventFilter, parse
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql import recording, rows
from receiver.tasks import Outcome, Status, Task, Trust
from tests.support.attempts import current_notice
from tests.support.patience import PATIENCE
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
LATER = NOW + 60_000
TASK = Task(
    "task-1",
    "kling",
    Status.CREATED,
    NOW - 2000,
    NOW - 2000,
    account="shop-2",
    reference="ORDER-7",
    model="kolors-v1",
    metadata={"campaign": "autumn", "cart": {"id": 7}},
)
IMAGE = {"index": 0, "url": "https://cdn.example/0.png"}
VIDEO = {"id": "1", "url": "https://cdn.example/1.mp4", "duration": "5"}


def hook(name: str, **where: Any) -> Subscription:
    """Return a subscription to every status with this filter; `__` in a name is a dot."""
    table = {field.replace("__", "."): value for field, value in where.items()}
    every = frozenset({"submitted", "processing", "succeeded", "failed", "given_up"})
    return Subscription(name, every, where=parse(table))


def responded(source: Source, status: str = "succeed", **more: Any) -> Callback:
    """Return the response to one of our own requests."""
    raw = json.dumps({"code": 0, "data": json.loads(body(status, **more))}).encode()
    return callback(raw, source=source, trust=Trust.QUERIED, received_at=LATER)


def hooks_of(store: Store, status: str | None = None) -> set[str]:
    """Return the hooks that have a delivery; with `status`, only for transitions to it."""
    return {one.hook for one in store.lists.deliveries() if status in (None, one.status)}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """Records the events for which filters are evaluated."""
    events: list[Mapping[str, Any]] = []
    original = EventFilter.matches

    def matches(self: EventFilter, notice: Notice) -> bool:
        events.append(notice.as_json())
        return original(self, notice)

    monkeypatch.setattr(EventFilter, "matches", matches)
    return events


def received(store: Store, delivery: Delivery) -> dict[str, Any]:
    """Return the event that a webhook would receive now."""
    return current_notice(DeliveryWorker(store, {}), delivery).as_json()


def test_a_callback_is_filtered_by_every_part_of_the_event(store: Store) -> None:
    store.inbox.create_task(TASK)
    hooks = [
        hook("account", task__account="shop-*"),
        hook("other account", task__account="store-*"),
        hook("metadata", task__metadata__cart__id=7),
        hook("other metadata", task__metadata__campaign="spring"),
        hook("cost", task__cost={"min": 0.5}),
        hook("other cost", task__cost={"min": 2}),
        hook("output", media__url="*.png"),
        hook("other output", media__kind="video"),
        hook("trust", trust=["token", "signed"]),
        hook("other trust", trust="queried"),
        hook("status", task__status="succeeded", task__provider_task_id="8283*"),
        hook("other status", task__status="submitted"),
        subscription("plain"),
    ]
    Ingest(store, hooks).accept(callback(body(final_unit_deduction="1")))
    names = {"account", "metadata", "cost", "output", "trust", "status", "plain"}
    assert hooks_of(store) == names


def test_a_filter_sees_the_event_that_a_webhook_receives(
    store: Store, seen: list[Mapping[str, Any]]
) -> None:
    store.inbox.create_task(TASK)
    ingest = Ingest(store, [hook("all", id="*")])
    for status in ("submitted", "processing", "succeed"):
        ingest.accept(callback(body(status, final_unit_deduction="1")))
        (newest, *_) = store.lists.deliveries()
        assert seen[-1] == received(store, newest)
    assert [event["type"] for event in seen] == [
        "task.submitted", "task.processing", "task.succeeded",
    ]  # fmt: skip
    assert len(seen[-1]["media"]) == 1


def test_a_failure_is_filtered_by_its_reason(store: Store) -> None:
    store.inbox.create_task(TASK)
    hooks = [hook("face", task__reason="*face*"), hook("other", task__reason="*content policy*")]
    Ingest(store, hooks).accept(callback(body("failed", task_status_msg="no face found")))
    assert hooks_of(store) == {"face"}


def test_the_event_given_up_is_filtered(store: Store, seen: list[Mapping[str, Any]]) -> None:
    store.inbox.create_task(TASK)
    hooks = [
        hook("account", task__account="shop-*", trust={"not": "*"}),
        hook("other account", task__account="store-*"),
        hook("time", task__given_up_at="*"),
    ]
    Ingest(store, hooks).give_up("task-1", LATER)
    assert hooks_of(store, "given_up") == {"account", "time"}
    (newest, *_) = store.lists.deliveries()
    assert seen[-1] == received(store, newest)


def test_the_response_to_a_query_is_filtered(store: Store) -> None:
    store.inbox.create_task(TASK)
    hooks = [hook("queried", trust="queried", media__kind="image"), hook("token", trust="token")]
    Ingest(store, hooks).accept(responded(Source.QUERY))
    assert hooks_of(store) == {"queried"}


def test_the_response_to_a_create_request_is_filtered(store: Store) -> None:
    store.inbox.create_task(TASK)
    hooks = [hook("account", task__account="shop-*"), hook("other", task__account="store-*")]
    Ingest(store, hooks).accept(responded(Source.CREATE, "submitted"))
    assert hooks_of(store, "submitted") == {"account"}


def test_a_task_that_a_callback_puts_on_record_is_filtered(store: Store) -> None:
    hooks = [hook("default", task__account="default"), hook("shop", task__account="shop-*")]
    Ingest(store, hooks).accept(callback(body(), "theirs"))
    assert hooks_of(store) == {"default"}


def test_a_group_commit_is_filtered(store: Store) -> None:
    store.inbox.create_task(TASK)
    hooks = [hook("account", task__account="shop-*"), hook("other", task__account="store-*")]
    ingest, message = Ingest(store, hooks), callback(body())
    write = ingest.submit(message, providers.parse(message))
    store.database.writer.start()
    assert write.result(PATIENCE) is Outcome.RECORDED
    assert hooks_of(store) == {"account"}


def test_a_replay_is_filtered(store: Store) -> None:
    store.inbox.create_task(TASK)
    ingest = Ingest(
        store, [hook("output", media__kind="image"), hook("other", media__kind="video")]
    )
    with pytest.raises(NotTheProtocol):
        ingest.accept(callback(body("completed")))
    (stored,) = store.lists.callbacks(outcome=Outcome.QUARANTINED)
    event = providers.parse(callback(body()))
    assert store.inbox.reopen(stored, event, ingest.subscriptions) is Outcome.RECORDED
    assert hooks_of(store) == {"output"}


def test_a_correction_is_filtered_with_its_own_values(
    store: Store, seen: list[Mapping[str, Any]]
) -> None:
    store.inbox.create_task(TASK)
    hooks = [hook("first", corrected=False), hook("again", corrected=True, trust="queried")]
    ingest = Ingest(store, hooks)
    ingest.accept(callback(body("failed")))
    assert hooks_of(store) == {"first"}
    assert ingest.accept(responded(Source.QUERY)) is Outcome.RECORDED
    assert hooks_of(store, "succeeded") == {"again"}
    assert seen[-1]["corrected"] is True
    (newest, *_) = store.lists.deliveries()
    assert seen[-1] == received(store, newest)


def test_a_corrected_result_has_its_own_id(store: Store, seen: list[Mapping[str, Any]]) -> None:
    store.inbox.create_task(TASK)
    ingest = Ingest(store, [hook("again", id="*:succeeded:1")])
    ingest.accept(callback(body(task_id="wrong")))
    assert hooks_of(store) == set()
    ingest.accept(responded(Source.CREATE, "submitted", task_id="right"))
    assert ingest.accept(responded(Source.QUERY, task_id="right")) is Outcome.RECORDED
    assert hooks_of(store) == {"again"}
    assert seen[-1] == received(store, store.lists.deliveries()[0])


def test_only_new_deliveries_that_match_are_created_later(store: Store) -> None:
    """`redeliver --since` reads the media from the stored messages."""
    for number, images in enumerate(([IMAGE], [])):
        result = {"images": images, "videos": [] if images else [VIDEO]}
        store.inbox.create_task(replace(TASK, id=f"task-{number}", account=f"shop-{number}"))
        message = callback(body(task_id=f"at-{number}", task_result=result), f"task-{number}")
        Ingest(store).accept(message)
    since = NOW - 60_000
    for late, task in (
        (hook("video", media__kind="video"), "task-1"),
        (hook("account", task__account="shop-0"), "task-0"),
    ):
        assert store.repair.catch_up(late, since, LATER, dry_run=True).changed == 1
        assert store.repair.catch_up(late, since, LATER).changed == 1
        (delivery,) = store.lists.deliveries(hook=late.hook)
        assert delivery.task_id == task
        assert store.repair.catch_up(late, since, LATER).changed == 0


def test_a_hook_is_called_when_a_query_finds_the_media_that_its_filter_needs(store: Store) -> None:
    store.inbox.create_task(replace(TASK, expects_callback=True))
    hooks = [
        hook("image", media__kind="image"),
        hook("second", media__index="1"),
        replace(hook("mail", media__index="1"), after="files"),
        hook("third", media__index="2"),
        subscription("files"),
    ]
    ingest = Ingest(store, hooks)
    half = {"images": [IMAGE, None]}
    whole = {"images": [IMAGE, {"index": 1, "url": "https://cdn.example/1.png"}]}
    ingest.accept(callback(body(task_result=half)))
    assert hooks_of(store) == {"image", "files"}
    for delivery in store.outbox.claim("worker", NOW, NOW, 9):
        if delivery.hook == "image":
            attempt = Attempt(1, NOW, NOW, "delivered", "ok")
            assert store.outbox.settle(delivery, attempt, State.DELIVERED, None)
    ingest = replace(ingest, subscriptions=[*hooks, subscription("added")])
    assert ingest.accept(responded(Source.QUERY, task_result=whole)) is Outcome.DUPLICATE
    assert hooks_of(store) == {"image", "files", "second", "mail"}
    (delivered,) = store.lists.deliveries(state=State.DELIVERED)  # it is not called again
    assert delivered.hook == "image"
    due = {one.hook: one.due_at for one in store.lists.deliveries()}
    assert (due["second"], due["mail"]) == (LATER, None)  # `mail` waits for `files`


def test_a_hook_does_not_wait_for_one_whose_filter_does_not_match(store: Store) -> None:
    store.inbox.create_task(TASK)
    hooks = [
        hook("files", task__account="store-*"),
        replace(subscription("mail"), after="files"),
    ]
    Ingest(store, hooks).accept(callback(body()))
    (delivery,) = store.lists.deliveries()
    assert (delivery.hook, delivery.after, delivery.due_at) == ("mail", None, NOW)


def test_the_event_is_built_once_and_only_for_a_filter(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def from_row(*values: Any) -> Any:
        built.append(values)
        return rows.from_row(*values)

    monkeypatch.setattr(recording, "from_row", from_row)
    store.inbox.create_task(TASK)
    others = replace(hook("other", trust="token"), providers=frozenset({"modellix"}))
    ingest = Ingest(store, [subscription("plain"), others])
    ingest.accept(callback(body("processing")))
    assert built == []
    hooks = [hook(str(number), trust="token") for number in range(3)]
    replace(ingest, subscriptions=hooks).accept(callback(body()))
    assert len(built) == 1
    assert len(hooks_of(store, "succeeded")) == 3


def test_the_notices_of_a_task_are_in_the_order_of_its_transitions(store: Store) -> None:
    store.inbox.create_task(TASK)
    for status in ("submitted", "succeed"):
        Ingest(store).accept(callback(body(status)))
    notices = store.queries.notices("task-1")
    assert [notice.status for notice in notices] == ["created", "submitted", "succeeded"]
    assert [len(notice.media) for notice in notices] == [0, 0, 1]
    assert store.queries.notices("nothing") == []
