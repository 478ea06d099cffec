"""The promises of every store about queries: one at a time, in time, and with the right effects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from receiver.config.table import Confirm
from receiver.deliveries import State
from receiver.errors import RequestRefused
from receiver.events import Callback, Source
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.metrics import CALLBACKS_MISSED, CONFLICTS, REPAIRS, Counter
from receiver.tasks import Outcome, Status, Task, Trust
from tests.support.attempts import notice_source
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
SOON = NOW + 90_000


def put(store: Store, task_id: str = "task-1", **more: object) -> Task:
    task = Task(task_id, "kling", Status.CREATED, NOW, NOW, deadline_at=SOON, expects_callback=True)
    new_task = replace(task, **more)  # type: ignore[arg-type]
    store.inbox.create_task(new_task)
    return new_task


def queried(raw: bytes) -> Callback:
    """Return the same message as the response to our query."""
    return callback(b'{"code": 0, "data": ' + raw + b"}", source=Source.QUERY, trust=Trust.QUERIED)


def counted(store: Store) -> dict[str, int]:
    return {counter.name: counter.value for counter in store.metrics.counters()}


# -- which tasks to query


def test_a_task_is_overdue_from_its_deadline(store: Store) -> None:
    put(store)
    assert store.polling.next_deadline_at() == SOON
    assert store.polling.claim_overdue(SOON - 1, SOON + 60_000, 5) == []
    (task,) = store.polling.claim_overdue(SOON, SOON + 60_000, 5)
    assert (task.id, task.asked, task.deadline_at) == ("task-1", 1, SOON + 60_000)
    # another poller queries it already
    assert store.polling.claim_overdue(SOON, SOON + 60_000, 5) == []


def test_several_pollers_query_each_task_once(store: Store) -> None:
    for number in range(40):
        put(store, f"task-{number}")
    with ThreadPoolExecutor(8) as pool:
        batches = list(
            pool.map(lambda _: store.polling.claim_overdue(SOON, SOON + 60_000, 7), range(8))
        )
    ids = [task.id for batch in batches for task in batch]
    assert len(ids) == len(set(ids)) == 40


def test_tasks_of_a_paused_account_are_not_claimed(store: Store) -> None:
    put(store, "mine")
    put(store, "others", account="shop2")
    store.polling.pause("kling:default", SOON + 1_000)
    store.polling.pause("kling:default", SOON)  # a shorter pause does not end a longer one
    assert [task.id for task in store.polling.claim_overdue(SOON, SOON + 60_000, 5)] == ["others"]
    assert [task.id for task in store.polling.claim_overdue(SOON + 1_000, SOON + 60_000, 5)] == [
        "mine"
    ]


def test_a_task_that_makes_progress_keeps_its_deadline(store: Store) -> None:
    put(store)
    Ingest(store).accept(callback(body("processing")))
    assert store.polling.next_deadline_at() == SOON


def test_a_final_status_removes_the_deadline(store: Store) -> None:
    put(store)
    Ingest(store).accept(callback())
    assert store.polling.next_deadline_at() is None
    store.polling.query_at("task-1", NOW)  # unless its result has expired
    assert [task.id for task in store.polling.claim_overdue(NOW, SOON, 5)] == ["task-1"]


def test_the_usual_duration_is_the_median_of_successes(store: Store) -> None:
    assert store.polling.usual_duration("kling") is None
    for number, took in enumerate((20_000, 30_000, 500_000)):
        put(store, f"task-{number}")
        Ingest(store).accept(callback(body(), f"task-{number}", received_at=NOW + took))
    put(store, "failed")
    Ingest(store).accept(callback(body("failed"), "failed", received_at=NOW + 1))
    assert store.polling.usual_duration("kling") == 30_000
    assert store.polling.usual_duration("modellix") is None


# -- giving up


def test_giving_up_is_reported_once_and_a_late_callback_is_still_recorded(store: Store) -> None:
    hooks = [replace(subscription("alarm"), on=frozenset({"given_up"})), subscription("mail")]
    ingest = Ingest(store, hooks)
    put(store)
    ingest.accept(callback(body("processing")))
    ingest.give_up("task-1", SOON)
    ingest.give_up("task-1", SOON + 1)
    task = store.queries.task("task-1")
    assert (task.status, task.given_up_at, task.deadline_at) == (Status.PROCESSING, SOON, None)
    assert [(d.hook, d.status) for d in store.lists.deliveries()] == [("alarm", "given_up")]
    (delivery,) = store.outbox.claim("w", SOON, SOON + 1, 5)
    assert notice_source(store, delivery).notice.as_json()["type"] == "task.given_up"
    assert ingest.accept(callback(body())) is Outcome.RECORDED
    assert store.queries.task("task-1").status is Status.SUCCEEDED


def test_a_task_with_a_final_status_is_not_given_up(store: Store) -> None:
    put(store)
    Ingest(store).accept(callback())
    Ingest(store).give_up("task-1", SOON)
    assert store.queries.task("task-1").given_up_at is None


# -- the effects of a query


def test_progress_by_a_query_is_a_repair_and_a_final_status_is_a_missed_callback(
    store: Store,
) -> None:
    put(store)
    ingest = Ingest(store)
    ingest.accept(queried(body("processing")))
    ingest.accept(queried(body("succeed")))
    assert store.metrics.counters() == [
        Counter(CALLBACKS_MISSED, "kling", 1),
        Counter(REPAIRS, "kling", 2),
    ]


def test_a_query_without_news_is_not_a_repair(store: Store) -> None:
    put(store)
    ingest = Ingest(store)
    ingest.accept(callback(body("processing")))
    assert ingest.accept(queried(body("processing"))) is Outcome.DUPLICATE
    assert store.metrics.counters() == []


def test_a_provider_without_callbacks_has_no_missed_callbacks(store: Store) -> None:
    put(store, expects_callback=False)
    Ingest(store).accept(queried(body()))
    assert store.metrics.counters() == []


def test_the_same_final_status_by_callback_and_by_query_calls_a_hook_once(store: Store) -> None:
    put(store)
    ingest = Ingest(store, [subscription("mail")])
    assert ingest.accept(queried(body())) is Outcome.RECORDED
    assert ingest.accept(callback(body())) is Outcome.DUPLICATE
    assert len(store.lists.deliveries()) == 1


def test_a_fresh_url_replaces_the_expired_one(store: Store) -> None:
    put(store)
    ingest = Ingest(store, [subscription("pictures")])
    ingest.accept(callback(body()))
    fresh = {"images": [{"index": 0, "url": "https://cdn.example/fresh.png"}]}
    assert ingest.accept(queried(body(task_result=fresh))) is Outcome.DUPLICATE
    (delivery,) = store.outbox.claim("w", SOON, SOON + 1, 5)
    delivered = notice_source(store, delivery).callback
    assert delivered is not None
    assert b"fresh.png" in delivered.body
    assert store.queries.task("task-1").trust is Trust.QUERIED


def test_a_conflict_is_queried_and_counted(store: Store) -> None:
    put(store)
    ingest = Ingest(store)
    ingest.accept(callback(body("failed")))
    assert ingest.accept(callback(body("succeed"))) is Outcome.CONFLICT
    assert store.polling.next_deadline_at() == NOW
    assert counted(store)[CONFLICTS] == 1
    assert ingest.accept(queried(body("failed"))) is Outcome.DUPLICATE
    assert store.polling.next_deadline_at() is None
    # now the final status comes from the provider's response
    late = callback(body("succeed", updated_at=1))
    assert ingest.accept(late) is Outcome.CONFLICT
    assert store.polling.next_deadline_at() is None


# -- final statuses that count only after a query


@pytest.mark.parametrize(
    ("confirm", "trust", "outcome"),
    [
        (Confirm.NEVER, Trust.TOKEN, Outcome.RECORDED),
        (Confirm.UNSIGNED, Trust.TOKEN, Outcome.CONFIRMING),
        (Confirm.UNSIGNED, Trust.SIGNED, Outcome.RECORDED),
        (Confirm.ALWAYS, Trust.TOKEN, Outcome.CONFIRMING),
        (Confirm.ALWAYS, Trust.SIGNED, Outcome.CONFIRMING),
    ],
)
@pytest.mark.parametrize("status", ["succeed", "failed"])
def test_a_final_status_counts_when_it_is_trusted_enough(
    store: Store, confirm: Confirm, trust: Trust, outcome: Outcome, status: str
) -> None:
    put(store)
    ingest = Ingest(store, [subscription("mail")], confirm)
    assert ingest.accept(callback(body(status), trust=trust)) is outcome
    moved = outcome is Outcome.RECORDED
    assert store.queries.task("task-1").status.is_terminal is moved
    assert len(store.lists.deliveries()) == moved
    assert store.polling.next_deadline_at() == (None if moved else NOW)


def test_the_response_of_the_provider_counts(store: Store) -> None:
    put(store)
    ingest = Ingest(store, [subscription("mail")], Confirm.UNSIGNED)
    ingest.accept(callback(body("succeed")))  # possibly forged
    assert ingest.accept(queried(body("failed"))) is Outcome.RECORDED
    assert store.queries.task("task-1").status is Status.FAILED
    assert [delivery.status for delivery in store.lists.deliveries()] == ["failed"]
    # the callback was not missed: it arrived, and was confirmed
    assert store.metrics.counters() == []


def test_progress_needs_no_confirmation(store: Store) -> None:
    put(store)
    ingest = Ingest(store, (), Confirm.ALWAYS)
    assert ingest.accept(callback(body("processing"))) is Outcome.RECORDED


def test_a_success_without_a_result_is_stored_and_queried(store: Store) -> None:
    put(store)
    ingest = Ingest(store, [subscription("mail")])
    empty: dict[str, list[Any]] = {"images": [], "videos": [], "audios": []}
    assert ingest.accept(callback(body(task_result=empty))) is Outcome.CONFIRMING
    assert store.queries.task("task-1").status is Status.CREATED
    assert store.polling.next_deadline_at() == NOW
    store.polling.query_at("task-1", SOON)
    assert ingest.accept(queried(body(task_result=empty))) is Outcome.CONFIRMING
    assert store.polling.next_deadline_at() == SOON  # by the schedule, not repeatedly
    assert ingest.accept(queried(body())) is Outcome.RECORDED
    assert [delivery.state for delivery in store.lists.deliveries()] == [State.PENDING]


# -- signed callbacks without a token


def signed(raw: bytes) -> Callback:
    return replace(callback(raw, trust=Trust.SIGNED), task_id=None)


def test_a_signed_callback_is_assigned_to_its_task_by_our_id(store: Store) -> None:
    put(store)
    raw = body("processing", task_info={"external_task_id": "task-1"})
    assert Ingest(store).accept(signed(raw)) is Outcome.RECORDED
    task = store.queries.task("task-1")
    assert (task.status, task.trust) == (Status.PROCESSING, Trust.SIGNED)


def test_a_signed_callback_is_assigned_to_its_task_by_the_providers_id(store: Store) -> None:
    put(store)
    Ingest(store).accept(callback(body("submitted")))
    assert Ingest(store).accept(signed(body("succeed"))) is Outcome.RECORDED
    assert store.queries.task("task-1").status is Status.SUCCEEDED
    assert store.queries.task_by_provider_id("kling", "828338674605220001").id == "task-1"


def test_a_signed_callback_of_an_unknown_task_is_adopted_once(store: Store) -> None:
    raws = [
        body(status, task_info={"external_task_id": "ORDER-7"})
        for status in ("submitted", "processing", "succeed") * 3
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda raw: Ingest(store).accept(signed(raw)), raws))
    (task,) = store.lists.tasks()
    assert (task.reference, task.status) == ("ORDER-7", Status.SUCCEEDED)


def test_a_signed_callback_in_quarantine_can_be_replayed(store: Store) -> None:
    store.inbox.quarantine(signed(body("succeed")), "a status we did not know then")
    (quarantined,) = store.lists.callbacks()
    assert (quarantined.callback.task_id, quarantined.callback.provider) == (None, "kling")
    assert Ingest(store).replay(quarantined.id) is Outcome.RECORDED
    (task,) = store.lists.tasks()
    assert task.status is Status.SUCCEEDED
    assert store.queries.callback(quarantined.id).callback.task_id == task.id


def test_repeated_signed_bytes_in_quarantine_are_counted_and_can_be_replayed(store: Store) -> None:
    for _ in range(3):
        store.inbox.quarantine(signed(body("succeed")), "not understood")
    (quarantined,) = store.lists.callbacks()
    assert quarantined.repeats == 2
    Ingest(store).accept(callback(body("succeed")))  # the same bytes, for one of our tasks
    store.inbox.quarantine(replace(signed(body("succeed")), headers={"a": "b"}), "again")
    for stored in store.lists.callbacks(outcome=Outcome.QUARANTINED):
        assert Ingest(store).replay(stored.id) in (Outcome.DUPLICATE, Outcome.RECORDED)


def test_a_repeated_conflict_is_counted_and_queried_once(store: Store) -> None:
    ingest = Ingest(store)
    ingest.accept(callback(body("succeed")))
    assert ingest.accept(callback(body("failed"))) is Outcome.CONFLICT
    assert store.polling.next_deadline_at() is not None
    store.polling.query_at("task-1", None)  # as the poller does after its query
    assert ingest.accept(callback(body("failed"))) is Outcome.CONFLICT
    assert store.polling.next_deadline_at() is None
    assert counted(store)[CONFLICTS] == 1


@pytest.mark.parametrize("raw", [b"", b"{}", b" {} \n", b"[]", b"null", b'""'])
def test_an_empty_message_is_stored_and_creates_no_task(store: Store, raw: bytes) -> None:
    """Such messages are a provider's probes, or are sent by a person with curl."""
    with pytest.raises(RequestRefused):
        Ingest(store).accept(callback(raw, "unknown"))
    assert store.lists.tasks() == []
    (quarantined,) = store.lists.callbacks(outcome=Outcome.QUARANTINED)
    assert quarantined.callback.body == raw


def test_an_empty_message_about_a_known_task_is_stored_with_it(store: Store) -> None:
    put(store)
    with pytest.raises(RequestRefused):
        Ingest(store).accept(callback(b"{}"))
    (stored,) = store.queries.history("task-1").callbacks
    assert stored.outcome is Outcome.QUARANTINED
