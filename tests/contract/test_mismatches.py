"""In every store, a message that names a different provider task changes nothing in the task."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from receiver.config.table import Confirm
from receiver.deliveries import Attempt, File, State
from receiver.errors import NotAMismatch, NotFound
from receiver.events import Callback, Event, Source
from receiver.ingest import Ingest
from receiver.providers import PROVIDERS, Provider
from receiver.stores.base import Store
from receiver.stores.sql.metrics import MISMATCHES
from receiver.stores.sql.rows import StoredCallback
from receiver.stores.sql.transfer import Transfer
from receiver.tasks import IdSource, Outcome, Status, Task, Trust
from tests.support.attempts import notice_source
from tests.support.patience import PATIENCE
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
MINUTE = 60_000
OURS, OTHER = "828338674605220001", "828338674605220002"
CALLERS = [name for name, adapter in PROVIDERS.items() if adapter.has_callbacks]
callers = pytest.mark.parametrize("provider", CALLERS)


@pytest.fixture
def ingest(store: Store) -> Ingest:
    return Ingest(store, [subscription("mail"), subscription("slack")])


def put(store: Store, provider: str = "kling", **more: Any) -> None:
    task = Task(
        "task-1",
        provider,
        Status.CREATED,
        NOW,
        NOW,
        expects_callback=True,
        deadline_at=NOW + 10 * MINUTE,
        **more,
    )
    store.inbox.create_task(task)


def called(status: str = "succeed", named: str = OURS, **more: Any) -> Callback:
    """Return a callback whose body contains `changes`."""
    changes = more.pop("changes", {})
    provider = more.pop("provider", "kling")
    task_id = more.pop("task_id", "task-1")
    return replace(callback(body(status, named, **changes), task_id, **more), provider=provider)


def answered(
    status: str = "submitted", named: str = OURS, source: Source = Source.CREATE, **more: Any
) -> Callback:
    """Return the response to our create request or to a query."""
    provider = more.pop("provider", "kling")
    if provider == "modellix":
        words = {"submitted": "pending", "succeed": "success"}
        data = {"task_id": named, "status": words.get(status, status)}
        raw = json.dumps({"code": 0, "data": data | more.pop("changes", {})}).encode()
    else:
        document = json.loads(body(status, named, **more.pop("changes", {})))
        raw = json.dumps({"code": 0, "data": document}).encode()
    response = callback(raw, source=source, trust=Trust.QUERIED, **more)
    return replace(response, provider=provider)


def queried(status: str = "succeed", named: str = OURS, **more: Any) -> Callback:
    return answered(status, named, Source.QUERY, **more)


def picture(name: str) -> dict[str, Any]:
    return {"task_result": {"images": [{"index": 0, "url": f"https://cdn.example/{name}.png"}]}}


def outcomes(store: Store) -> list[str]:
    return [stored.outcome.value for stored in store.queries.history("task-1").callbacks]


def moves(store: Store) -> list[str]:
    return [move.status for move in store.queries.history("task-1").transitions]


def mismatches(store: Store) -> int:
    return next((one.value for one in store.metrics.counters() if one.name == MISMATCHES), 0)


def delivered(store: Store) -> list[tuple[str, str, str]]:
    return sorted(
        (one.hook, one.status, one.state.value) for one in store.lists.deliveries(task_id="task-1")
    )


def delivered_body(store: Store) -> bytes:
    """Return the body of the message to which a delivery of the task refers."""
    delivery = store.lists.deliveries(task_id="task-1")[0]
    found = notice_source(store, delivery).callback
    assert found is not None
    return found.body


def deliver_all(store: Store, at: int) -> None:
    for one in store.outbox.claim("w", at, at + 10_000, 9):
        store.outbox.settle(
            one, Attempt(one.attempts, at, at, "delivered", "ok"), State.DELIVERED, None
        )


def the_mismatch(store: Store) -> StoredCallback:
    (found,) = store.lists.callbacks(outcome=Outcome.MISMATCH)
    return found


# -- the effects of a mismatch


@pytest.mark.parametrize("status", ["submitted", "processing", "succeed", "failed"])
def test_a_mismatch_is_stored_and_counted_and_changes_nothing(
    store: Store, ingest: Ingest, status: str
) -> None:
    put(store)
    ingest.accept(answered())
    before = store.queries.task("task-1")
    assert ingest.accept(called(status, OTHER, received_at=NOW + 9)) is Outcome.MISMATCH
    after = store.queries.task("task-1")
    assert after == replace(before, deadline_at=NOW + 9, mismatched_at=NOW + 9)
    assert after.updated_at == before.updated_at
    assert moves(store) == ["created", "submitted"]
    assert store.lists.deliveries() == []
    stored = the_mismatch(store)
    assert stored.callback.body == body(status, OTHER)
    assert stored.problem == f"names provider task {OTHER}; provider task {OURS} is on record"
    assert mismatches(store) == 1


def test_the_picture_of_a_second_provider_task_never_becomes_the_result(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(answered())
    assert ingest.accept(called("succeed", OTHER, changes=picture("b"))) is Outcome.MISMATCH
    assert ingest.accept(called("succeed", OURS, changes=picture("a"))) is Outcome.RECORDED
    assert delivered(store) == [
        ("mail", "succeeded", "pending"),
        ("slack", "succeeded", "pending"),
    ]
    assert b"a.png" in delivered_body(store)
    assert outcomes(store) == ["recorded", "mismatch", "recorded"]


def test_the_same_bytes_again_are_counted_and_not_stored_again(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(answered())
    for _ in range(3):
        assert ingest.accept(called("succeed", OTHER)) is Outcome.MISMATCH
    assert the_mismatch(store).repeats == 2
    assert mismatches(store) == 1


def test_the_problem_of_a_mismatch_also_names_dropped_fields(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    ingest.accept(called("processing", OTHER, changes={"updated_at": "when?"}))
    problem = the_mismatch(store).problem or ""
    assert problem.startswith(
        f"names provider task {OTHER}; provider task {OURS} is on record; updated_at"
    )


@callers
def test_with_only_a_callback_url_the_first_callback_decides(
    store: Store, ingest: Ingest, provider: str
) -> None:
    put(store, provider)  # as `receiver url` does
    assert ingest.accept(called("processing", "a", provider=provider)) is Outcome.RECORDED
    assert ingest.accept(called("succeed", "b", provider=provider)) is Outcome.MISMATCH
    assert ingest.accept(called("succeed", "a", provider=provider)) is Outcome.RECORDED
    assert ingest.accept(called("failed", "b", provider=provider)) is Outcome.MISMATCH
    assert moves(store) == ["created", "processing", "succeeded"]


@callers
def test_an_adopted_task_keeps_its_first_id(store: Store, ingest: Ingest, provider: str) -> None:
    assert ingest.accept(called("processing", "a", provider=provider)) is Outcome.RECORDED
    assert ingest.accept(called("succeed", "b", provider=provider)) is Outcome.MISMATCH
    assert store.queries.task("task-1").status is Status.PROCESSING


@pytest.mark.parametrize("written", ["7", " 7", "7\r\n"])
def test_spaces_around_the_id_of_a_signed_callback_are_ignored(
    store: Store, ingest: Ingest, written: str
) -> None:
    put(store)
    ingest.accept(answered(named="7"))
    signed = replace(called("succeed", written), task_id=None, trust=Trust.SIGNED)
    assert ingest.accept(signed) is Outcome.RECORDED
    assert [task.id for task in store.lists.tasks()] == ["task-1"]


@pytest.mark.parametrize(
    ("on_record", "named", "is_other"),
    [
        ("7", 7, False),
        ("828338674605220001", 828338674605220001, False),
        ("7", " 7\n", False),
        ("7", "07", True),
        ("7", 8, True),
        ("Ab", "aB", True),
        ("CjikY2gHPbcAAAAABI5n9g", "CjikY2gHPbcAAAAABI5n9G", True),
        ("7", "\u0667", True),  # another digit seven
        ("7", "-7", True),
    ],
)
def test_ids_are_equal_as_integers_or_strings_and_compared_in_one_letter_case(
    store: Store, ingest: Ingest, on_record: str, named: object, is_other: bool
) -> None:
    put(store)
    ingest.accept(answered(named=on_record))
    outcome = ingest.accept(called("processing", named=named))  # type: ignore[arg-type]
    assert outcome is (Outcome.MISMATCH if is_other else Outcome.RECORDED)
    assert store.queries.task("task-1").provider_task_id == on_record


def test_an_id_is_the_same_in_both_dialects(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    new = {"id": OURS, "status": "processing"}
    assert ingest.accept(callback(json.dumps(new).encode())) is Outcome.RECORDED
    other = {"id": OTHER, "status": "failed"}
    assert ingest.accept(callback(json.dumps(other).encode())) is Outcome.MISMATCH


def test_a_signature_does_not_prevent_a_mismatch(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    assert ingest.accept(called("succeed", OTHER, trust=Trust.SIGNED)) is Outcome.MISMATCH
    info = {"task_info": {"external_task_id": "task-1"}}
    no_token = called("failed", OTHER, trust=Trust.SIGNED, task_id=None, changes=info)
    assert ingest.accept(no_token) is Outcome.MISMATCH
    assert store.queries.task("task-1").status is Status.SUBMITTED


def test_a_signed_callback_without_a_token_is_assigned_by_the_id_on_record(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(answered())
    ingest.accept(called("processing", OTHER))
    found = called("succeed", OURS, trust=Trust.SIGNED, task_id=None)
    assert ingest.accept(found) is Outcome.RECORDED
    stranger = called("succeed", OTHER, trust=Trust.SIGNED, task_id=None)
    assert ingest.accept(stranger) is Outcome.RECORDED  # a separate task
    assert store.queries.task("task-1").status is Status.SUCCEEDED
    assert len(store.lists.tasks()) == 2


@pytest.mark.parametrize("confirm", list(Confirm))
def test_a_mismatch_is_never_confirmed(store: Store, confirm: Confirm) -> None:
    put(store)
    ingest = Ingest(store, [subscription("mail")], confirm)
    ingest.accept(answered())
    assert ingest.accept(called("succeed", OTHER)) is Outcome.MISMATCH


def test_nothing_of_a_mismatch_is_stored_for_a_forgotten_task(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    ingest.accept(called("processing", OTHER))
    store.erasures.close_task("task-1", NOW)
    store.erasures.erase("task-1", NOW)
    assert ingest.accept(called("succeed", OTHER)) is Outcome.STALE
    stored = store.queries.history("task-1").callbacks
    assert {one.callback.body for one in stored} == {b""}
    assert {one.problem for one in stored} == {None}
    with pytest.raises(NotFound):
        ingest.replay(the_mismatch(store).id, accept=True)
    assert store.queries.task("task-1").deadline_at is None


def test_a_mismatch_of_a_task_that_is_being_forgotten_cannot_be_accepted(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(answered())
    ingest.accept(called("succeed", OTHER))
    store.erasures.close_task("task-1", NOW)  # its messages are erased next
    with pytest.raises(NotFound, match="was forgotten"):
        ingest.replay(the_mismatch(store).id, accept=True)
    assert store.queries.task("task-1").provider_task_id == OURS


def test_simultaneous_callbacks_leave_one_id_and_one_result(store: Store, ingest: Ingest) -> None:
    """Eight threads send every status of two provider tasks to one callback URL."""
    put(store)
    work = [
        called(status, named, changes={"n": number} | picture(named))
        for status, named, number in itertools.product(
            ("submitted", "processing", "succeed"), (OURS, OTHER), range(4)
        )
    ]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ingest.accept, work))
    on_record = store.queries.task("task-1").provider_task_id
    named = [json.loads(one.body)["task_id"] for one in work]
    assert {
        name for name, outcome in zip(named, found, strict=True) if outcome is Outcome.MISMATCH
    } == {OURS, OTHER} - {on_record}
    assert Counter(found)[Outcome.MISMATCH] == mismatches(store) == 12
    assert f"{on_record}.png".encode() in delivered_body(store)
    assert len(store.lists.deliveries()) == 2


def test_messages_of_one_batch_are_judged_in_order(store: Store, ingest: Ingest) -> None:
    put(store)
    messages = [
        called("processing", OURS),
        called("succeed", OTHER),
        called("succeed", OTHER),
        called("succeed", OURS),
    ]
    writes = [ingest.submit(one, parsed(one)) for one in messages]
    store.database.writer.start()
    assert [write.result(PATIENCE) for write in writes] == [
        Outcome.RECORDED,
        Outcome.MISMATCH,
        Outcome.MISMATCH,
        Outcome.RECORDED,
    ]
    assert the_mismatch(store).repeats == 1


def parsed(message: Callback) -> Event:
    return PROVIDERS[message.provider].parse(message)


# -- the query after a mismatch


def test_a_mismatch_makes_the_task_due_for_a_query(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    ingest.accept(called("succeed", OTHER, received_at=NOW + 5))
    (due,) = store.polling.claim_overdue(NOW + 5, NOW + MINUTE, 9)
    assert (due.id, due.provider_task_id) == ("task-1", OURS)


def test_an_earlier_deadline_is_kept(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    store.polling.query_at("task-1", NOW - 7)
    ingest.accept(called("succeed", OTHER))
    assert store.queries.task("task-1").deadline_at == NOW - 7


def test_many_mismatches_cause_one_query_a_minute(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    queries = 0
    for number in range(300):  # one a second, for five minutes
        at = NOW + number * 1000
        ingest.accept(called("succeed", OTHER, received_at=at, changes={"n": number}))
        for task in store.polling.claim_overdue(at, at + 2 * MINUTE, 9):
            queries += 1
            store.polling.postpone(task, at + 60 * MINUTE)
    assert queries == 5


def test_a_queried_final_status_is_not_queried_again(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    ingest.accept(queried())
    assert ingest.accept(called("failed", OTHER)) is Outcome.MISMATCH
    assert store.polling.next_deadline_at() is None
    assert not store.queries.task("task-1").conflict


def test_a_less_trusted_final_status_is_queried_once(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    ingest.accept(called("succeed"))
    ingest.accept(called("failed", OTHER))
    assert store.polling.next_deadline_at() == NOW
    deliver_all(store, NOW)
    assert ingest.accept(queried()) is Outcome.DUPLICATE  # it was right, so nothing is sent again
    assert store.polling.next_deadline_at() is None
    assert {state for *_, state in delivered(store)} == {"delivered"}


def test_a_task_that_was_given_up_is_not_queried(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    store.inbox.give_up("task-1", NOW, [])
    assert ingest.accept(called("succeed", OTHER)) is Outcome.MISMATCH
    assert store.polling.next_deadline_at() is None


def test_a_task_that_cannot_be_queried_is_not_due_for_a_query(store: Store, ingest: Ingest) -> None:
    put(store, "appypie")  # without the response to the create, its only id is that of callbacks
    ingest.accept(called("processing", "a", provider="appypie"))
    ingest.accept(called("succeed", "b", provider="appypie"))
    assert store.polling.next_deadline_at() == NOW + 10 * MINUTE


# -- ids that replace others


def test_the_id_in_the_create_response_replaces_one_from_a_callback(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    assert ingest.accept(called("processing", OTHER)) is Outcome.RECORDED
    assert store.queries.task("task-1").id_source is IdSource.CALLBACK
    ingest.accept(answered())
    task = store.queries.task("task-1")
    assert (task.provider_task_id, task.id_source) == (OURS, IdSource.CREATE)
    assert outcomes(store) == ["mismatch", "stale"]
    (earlier,) = store.lists.callbacks(outcome=Outcome.MISMATCH)
    assert earlier.problem == f"names provider task {OTHER}; provider task {OURS} is on record"
    assert ingest.accept(called("failed", OTHER)) is Outcome.MISMATCH
    assert ingest.accept(called("succeed")) is Outcome.RECORDED


def test_an_equal_id_in_the_create_response_outranks_that_of_a_callback(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(called("processing"))
    ingest.accept(answered())
    assert store.queries.task("task-1").id_source is IdSource.CREATE
    assert mismatches(store) == 0
    assert ingest.accept(queried("succeed", OTHER)) is Outcome.MISMATCH


def test_the_right_callback_may_be_a_mismatch_before_the_create_response(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(called("submitted", OTHER))
    assert ingest.accept(called("succeed", OURS, changes=picture("a"))) is Outcome.MISMATCH
    ingest.accept(answered())
    assert store.polling.next_deadline_at() == NOW  # the rejected success is fetched by a query
    ingest.accept(queried("succeed", changes=picture("a")))
    assert store.queries.task("task-1").status is Status.SUCCEEDED
    assert b"a.png" in delivered_body(store)


def test_a_wrong_success_before_the_create_response_is_flagged_and_corrected_by_a_query(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(called("succeed", OTHER, changes=picture("b")))
    deliver_all(store, NOW)
    ingest.accept(answered())
    task = store.queries.task("task-1")
    assert (task.status, task.conflict, task.deadline_at) == (Status.SUCCEEDED, True, NOW)
    assert ingest.accept(called("succeed", OURS, changes=picture("a"))) is Outcome.DUPLICATE
    assert ingest.accept(queried("succeed", changes=picture("a"))) is Outcome.RECORDED
    (move,) = [
        move for move in store.queries.history("task-1").transitions if move.status == "succeeded"
    ]
    assert move.corrected
    assert delivered(store) == [  # called again, now with the right picture
        ("mail", "succeeded", "pending"),
        ("slack", "succeeded", "pending"),
    ]
    assert b"a.png" in delivered_body(store)
    notice = notice_source(store, store.lists.deliveries()[0]).notice
    # a new id, so that an endpoint does not ignore it as a repetition
    assert notice.id == "task-1:succeeded:1"
    assert notice.as_json()["corrected"] is True
    assert {one.due_at for one in store.lists.deliveries()} == {NOW}
    assert store.polling.next_deadline_at() is None
    assert ingest.accept(queried("succeed", changes=picture("a2"))) is Outcome.DUPLICATE  # once


@pytest.mark.parametrize("wait_ms", [None, 2 * MINUTE])
def test_a_file_of_the_wrong_task_is_hidden_but_can_still_be_erased(
    store: Store, wait_ms: int | None
) -> None:
    put(store)
    hooks = [subscription("pictures"), subscription("mail", after="pictures", wait_ms=wait_ms)]
    ingest = Ingest(store, hooks)
    ingest.accept(called("succeed", OTHER, changes=picture("b")))
    (download,) = store.outbox.claim("w", NOW, NOW + MINUTE, 9)
    wrong = File("0", "/data/b.jpg", "ab" * 32, 3, "image/jpeg", b"thumbnail")
    ended = Attempt(download.attempts, NOW, NOW, "delivered", "ok")
    store.outbox.settle(download, ended, State.DELIVERED, None, [wrong], output={"of": "b"})
    deliver_all(store, NOW)
    ingest.accept(answered())
    ingest.accept(queried("succeed", changes=picture("a")))
    assert store.queries.delivery(download.id).output == {}  # it was made from the wrong result
    assert store.queries.pictures(["task-1"]) == {}
    (again,) = store.outbox.claim("w", NOW, NOW + MINUTE, 9)  # the mail waits for the right picture
    assert again.hook == "pictures"
    assert [one.hook for one in store.lists.deliveries() if one.is_waiting(NOW)] == ["mail"]
    right = File("0", "/data/a.png", "cd" * 32, 4, "image/png", b"small")
    store.outbox.settle(
        again, Attempt(again.attempts, NOW, NOW, "delivered", "ok"), State.DELIVERED, None, [right]
    )
    (mail,) = store.outbox.claim("w", NOW, NOW + MINUTE, 9)
    notice = notice_source(store, mail).notice
    media = parsed(queried("succeed", changes=picture("a"))).media[0]
    assert notice.files == (right,)
    assert notice.file_of(media) == right
    ((shown,),) = store.queries.pictures(["task-1"]).values()
    assert shown.file.url == "/data/a.png"
    erased = store.erasures.close_task("task-1", NOW).files
    assert {file.url for file in erased} == {"/data/b.jpg", "/data/a.png"}
    assert {file.thumbnail for file in erased} == {None, b"small"}


def test_a_wrong_failure_before_the_create_response_is_corrected_too(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(called("failed", OTHER))
    ingest.accept(answered())
    assert ingest.accept(queried("succeed")) is Outcome.RECORDED
    assert moves(store) == ["created", "failed", "succeeded"]


def test_a_wrong_final_status_remains_until_a_query_returns_another(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(called("succeed", OTHER))
    ingest.accept(answered())
    assert ingest.accept(queried("processing")) is Outcome.STALE
    assert store.queries.task("task-1").deadline_at == NOW


def test_a_running_delivery_is_sent_again_after_a_correction(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(called("succeed", OTHER))
    (running,) = store.outbox.claim("w", NOW, NOW + MINUTE, 1)
    ingest.accept(answered())
    ingest.accept(queried("succeed", changes=picture("a")))
    ended = Attempt(running.attempts, NOW, NOW, "delivered", "ok")
    assert not store.outbox.settle(running, ended, State.DELIVERED, None)
    assert {state for *_, state in delivered(store)} == {"pending"}


def test_a_final_status_from_a_query_of_the_wrong_task_is_corrected(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(called("processing", OTHER))
    ingest.accept(queried("failed", OTHER))  # queried by the only known id
    assert store.queries.task("task-1").trust is Trust.QUERIED
    ingest.accept(answered())
    assert ingest.accept(queried("succeed")) is Outcome.RECORDED
    assert store.queries.task("task-1").status is Status.SUCCEEDED


def test_a_query_by_our_own_id_replaces_an_id_from_a_callback(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(called("processing", OTHER))
    assert ingest.accept(queried("succeed", OURS, changes=picture("a"))) is Outcome.RECORDED
    task = store.queries.task("task-1")
    assert (task.provider_task_id, task.id_source) == (OURS, IdSource.QUERY)
    assert b"a.png" in delivered_body(store)
    assert store.polling.next_deadline_at() is None


def test_a_late_response_about_the_replaced_task_is_a_mismatch(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(called("processing", OTHER))
    ingest.accept(answered())
    assert ingest.accept(queried("succeed", OTHER)) is Outcome.MISMATCH
    assert store.queries.task("task-1").status is Status.PROCESSING


@pytest.mark.parametrize("provider", list(PROVIDERS))
def test_a_response_that_names_another_task_is_a_mismatch(
    store: Store, ingest: Ingest, provider: str
) -> None:
    put(store, provider)
    ingest.accept(answered(provider=provider))
    assert ingest.accept(queried("succeed", OTHER, provider=provider)) is Outcome.MISMATCH
    assert store.queries.task("task-1").status is Status.SUBMITTED
    assert ingest.accept(queried("succeed", OURS, provider=provider)) in (
        Outcome.RECORDED,
        Outcome.CONFIRMING,  # without a picture in this sample
    )


def test_a_refused_create_contains_no_id(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(called("processing", OTHER))
    raw = b'{"code": 1201, "message": "no"}'
    refusal = callback(raw, source=Source.CREATE, trust=Trust.QUERIED)
    assert ingest.accept(refusal) is Outcome.RECORDED
    assert store.queries.task("task-1").provider_task_id == OTHER


# -- a provider that may use other ids in callbacks


def test_ids_of_callbacks_and_responses_are_stored_separately_and_never_compared(
    store: Store, ingest: Ingest
) -> None:
    put(store, "appypie")
    ingest.accept(answered(named="by-appypie", provider="appypie"))
    assert ingest.accept(called("processing", "by-kling", provider="appypie")) is Outcome.RECORDED
    task = store.queries.task("task-1")
    assert (task.provider_task_id, task.callback_task_id) == ("by-appypie", "by-kling")
    assert ingest.accept(called("succeed", "by-kling", provider="appypie")) is Outcome.RECORDED
    assert mismatches(store) == 0
    assert store.queries.task_by_provider_id("appypie", "by-kling").id == "task-1"
    assert store.queries.task_by_provider_id("appypie", "by-appypie").id == "task-1"


def test_a_callback_before_the_create_response_replaces_nothing(
    store: Store, ingest: Ingest
) -> None:
    put(store, "appypie")
    ingest.accept(called("processing", "by-kling", provider="appypie"))
    ingest.accept(answered(named="by-appypie", provider="appypie"))
    ingest.accept(queried("processing", "by-appypie", provider="appypie"))
    task = store.queries.task("task-1")
    assert (task.provider_task_id, task.callback_task_id) == ("by-appypie", "by-kling")
    assert mismatches(store) == 0


def test_ids_of_callbacks_are_compared_with_each_other(store: Store, ingest: Ingest) -> None:
    put(store, "appypie")
    ingest.accept(answered(named="by-appypie", provider="appypie"))
    ingest.accept(called("processing", "by-kling", provider="appypie"))
    assert ingest.accept(called("succeed", "other", provider="appypie")) is Outcome.MISMATCH
    # even if it contains the id of the create response, because it is unknown which one is right
    outcome = ingest.accept(called("succeed", "by-appypie", provider="appypie"))
    assert outcome is Outcome.MISMATCH
    assert store.polling.next_deadline_at() == NOW  # the query decides


def test_of_contradictory_callbacks_only_the_query_counts(store: Store, ingest: Ingest) -> None:
    put(store, "appypie")
    ingest.accept(answered(named="by-appypie", provider="appypie"))
    ingest.accept(called("processing", "b", provider="appypie"))
    ingest.accept(called("processing", "a", provider="appypie"))
    wrong = called("succeed", "b", provider="appypie", changes=picture("b"))
    assert ingest.accept(wrong) is Outcome.CONFIRMING
    right = queried("succeed", "by-appypie", provider="appypie", changes=picture("a"))
    assert ingest.accept(right) is Outcome.RECORDED
    assert b"a.png" in delivered_body(store)


def test_an_operator_may_decide_between_contradictory_callbacks(
    store: Store, ingest: Ingest
) -> None:
    put(store, "appypie")
    ingest.accept(answered(named="by-appypie", provider="appypie"))
    ingest.accept(called("processing", "b", provider="appypie"))
    ingest.accept(called("succeed", "a", provider="appypie", changes=picture("a")))
    assert ingest.replay(the_mismatch(store).id, accept=True) is Outcome.RECORDED
    task = store.queries.task("task-1")
    assert (task.provider_task_id, task.callback_task_id) == ("by-appypie", "a")
    assert outcomes(store) == ["recorded", "mismatch", "recorded"]


def test_an_adopted_task_of_such_a_provider_is_found_by_the_id_of_its_callbacks(
    store: Store, ingest: Ingest
) -> None:
    first = called("processing", "x", provider="appypie", trust=Trust.SIGNED, task_id=None)
    assert ingest.accept(first) is Outcome.RECORDED
    then = called("succeed", "x", provider="appypie", trust=Trust.SIGNED, task_id=None)
    assert ingest.accept(then) is Outcome.RECORDED
    (task,) = store.lists.tasks()
    assert (task.status, task.provider_task_id) == (Status.SUCCEEDED, None)
    assert task.callback_task_id == task.id_at_provider == "x"


# -- an operator accepts a mismatch


@callers
def test_an_accepted_mismatch_is_recorded_and_its_id_replaces_the_old_one(
    store: Store, ingest: Ingest, provider: str
) -> None:
    put(store, provider)
    ingest.accept(called("processing", "a", provider=provider))
    ingest.accept(called("succeed", "b", provider=provider, changes=picture("b")))
    assert ingest.replay(the_mismatch(store).id) is Outcome.MISMATCH  # without accepting it
    assert mismatches(store) == 1
    assert ingest.replay(the_mismatch(store).id, accept=True) is Outcome.RECORDED
    task = store.queries.task("task-1")
    assert (task.status, task.id_at_provider) == (Status.SUCCEEDED, "b")
    assert outcomes(store) == ["mismatch", "recorded"]  # of "a" and of "b"
    assert b"b.png" in delivered_body(store)
    assert ingest.accept(called("failed", "a", provider=provider)) is Outcome.MISMATCH
    assert ingest.accept(called("succeed", "b", provider=provider, changes={"n": 1})) is (
        Outcome.DUPLICATE
    )


def test_an_accepted_id_outranks_a_create_response(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(called("processing", "a"))
    ingest.accept(called("processing", "b"))
    ingest.replay(the_mismatch(store).id, accept=True)
    assert ingest.accept(answered(named="c")) is Outcome.MISMATCH
    task = store.queries.task("task-1")
    assert (task.provider_task_id, task.id_source) == ("b", IdSource.OPERATOR)


@pytest.mark.parametrize("wrong", ["succeed", "failed"])
@pytest.mark.parametrize("right", ["succeed", "failed"])
@pytest.mark.parametrize("is_queried", [False, True])
def test_accepting_a_final_status_corrects_that_of_the_other_task(
    store: Store, ingest: Ingest, wrong: str, right: str, is_queried: bool
) -> None:
    put(store)
    ingest.accept(answered(named="a"))
    ingest.accept(called(wrong, "a", changes=picture("a")))
    if is_queried:
        ingest.accept(queried(wrong, "a", changes=picture("a")))
    deliver_all(store, NOW)
    ingest.accept(called(right, "b", changes=picture("b")))
    number = store.lists.callbacks(outcome=Outcome.MISMATCH)[0].id
    assert ingest.replay(number, accept=True) is Outcome.RECORDED
    task = store.queries.task("task-1")
    assert task.status is {"succeed": Status.SUCCEEDED, "failed": Status.FAILED}[right]
    pending = [one for one in store.lists.deliveries() if one.state is State.PENDING]
    assert {(one.hook, one.status) for one in pending} == {
        ("mail", task.status.value),
        ("slack", task.status.value),
    }
    assert b"b.png" in delivered_body(store)


def test_only_messages_with_another_id_than_the_accepted_one_may_be_accepted(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(called("processing", "a"))
    ingest.accept(called("processing", "b"))
    ingest.accept(called("succeed", "b"))
    accepted = store.lists.callbacks(outcome=Outcome.MISMATCH)[0].id
    ingest.replay(accepted, accept=True)
    task = store.queries.task("task-1")
    of_a, of_b, recorded = store.queries.history("task-1").callbacks
    assert [one.outcome for one in (of_a, of_b)] == [Outcome.MISMATCH] * 2
    assert of_a.may_be_accepted(task)
    assert not of_b.may_be_accepted(task)
    assert not recorded.may_be_accepted(task)
    with pytest.raises(NotAMismatch):
        ingest.replay(of_b.id, accept=True)


def test_a_decision_can_be_reversed(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(called("succeed", "a"))
    ingest.accept(called("failed", "b"))
    first, second = (stored.id for stored in store.queries.history("task-1").callbacks)
    ingest.replay(second, accept=True)
    assert store.queries.task("task-1").status is Status.FAILED
    assert ingest.replay(first, accept=True) is Outcome.RECORDED
    task = store.queries.task("task-1")
    assert (task.status, task.provider_task_id) == (Status.SUCCEEDED, "a")
    assert store.queries.callback(second).outcome is Outcome.MISMATCH


def test_accepting_anything_but_a_mismatch_is_refused(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(answered())
    ingest.accept(called("processing"))
    for stored in store.queries.history("task-1").callbacks:
        with pytest.raises(NotAMismatch, match=f"callback {stored.id} is not a mismatch"):
            ingest.replay(stored.id, accept=True)
    with pytest.raises(NotFound):
        ingest.replay(99, accept=True)


def test_a_mismatch_is_accepted_once(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(called("processing", "a"))
    ingest.accept(called("succeed", "b"))
    number = the_mismatch(store).id
    ingest.replay(number, accept=True)
    with pytest.raises(NotAMismatch):
        ingest.replay(number, accept=True)
    assert len(store.lists.deliveries()) == 2


def test_a_mismatch_whose_id_is_on_record_now_is_recorded_by_a_plain_replay(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(called("submitted", OTHER))
    ingest.accept(called("succeed", OURS))
    number = the_mismatch(store).id
    ingest.accept(answered())
    with pytest.raises(NotAMismatch, match="without accepting it"):
        ingest.replay(number, accept=True)
    assert ingest.replay(number) is Outcome.RECORDED
    assert store.queries.callback(number).problem is None


def test_the_same_bytes_count_once_their_id_is_on_record(store: Store, ingest: Ingest) -> None:
    put(store)
    ingest.accept(called("submitted", OTHER))
    assert ingest.accept(called("succeed", OURS)) is Outcome.MISMATCH
    ingest.accept(answered())
    assert ingest.accept(called("succeed", OURS)) is Outcome.RECORDED
    assert len(store.lists.deliveries()) == 2
    assert outcomes(store) == ["mismatch", "recorded", "duplicate"]


@pytest.mark.parametrize("comes_again", [True, False])
def test_a_message_that_is_no_longer_a_mismatch_gets_its_new_outcome(
    store: Store, ingest: Ingest, comes_again: bool
) -> None:
    put(store)
    ingest.accept(called("submitted", OTHER))
    ingest.accept(called("submitted", OURS))
    number = the_mismatch(store).id
    ingest.accept(answered())
    found = ingest.accept(called("submitted", OURS)) if comes_again else ingest.replay(number)
    assert found is Outcome.DUPLICATE
    stored = store.queries.callback(number)
    assert (stored.outcome, stored.problem) == (Outcome.DUPLICATE, None)


def test_a_quarantined_message_that_names_another_task_is_a_mismatch_once_it_is_parsed(
    store: Store, ingest: Ingest
) -> None:
    put(store)
    ingest.accept(answered())
    message = called("succeed", OTHER)
    store.inbox.quarantine(message, "an older release did not understand it")
    (stored,) = store.lists.callbacks(outcome=Outcome.QUARANTINED)
    assert ingest.replay(stored.id) is Outcome.MISMATCH
    assert the_mismatch(store).id == stored.id
    assert mismatches(store) == 1


def test_an_accepted_final_status_may_have_to_be_confirmed(store: Store) -> None:
    put(store)
    ingest = Ingest(store, [subscription("mail")], Confirm.ALWAYS)
    ingest.accept(answered(named="a"))
    ingest.accept(called("succeed", "b"))
    assert ingest.replay(the_mismatch(store).id, accept=True) is Outcome.CONFIRMING
    assert store.polling.next_deadline_at() is not None
    assert ingest.accept(queried("succeed", "b")) is Outcome.RECORDED


# -- a record of the previous release


def as_before(row: dict[str, Any]) -> dict[str, Any]:
    new = ("callback_task_id", "id_source", "mismatched_at", "revision")
    return {name: value for name, value in row.items() if name not in new}


def test_the_migration_keeps_every_message_and_determines_the_source_of_each_id(
    lacking: Callable[..., Store],
) -> None:
    # The latter two have an index on a column that the first one adds.
    lacked = ["0009_provider_tasks", "0013_lists", "0022_live_events"]
    before, now = lacking(*lacked), lacking()
    ingest = Ingest(now, [subscription("mail")])
    for name, messages in {
        "created": [answered(), called("succeed")],
        "queried": [queried("processing"), called("succeed")],
        "called": [called("processing"), called("failed"), called("succeed")],
        "nothing": [],
    }.items():
        now.inbox.create_task(Task(name, "kling", Status.CREATED, NOW, NOW))
        for one in messages:
            ingest.accept(replace(one, task_id=name))
    now.inbox.quarantine(replace(called(), body=b"?", task_id="called"), "not JSON")
    tables = ("tasks", "callbacks", "transitions", "deliveries")
    rows = {
        table: [row for page in Transfer(now.database).pages(table) for row in page]
        for table in tables
    }
    # a create response that named another task than an earlier callback, which was only noted
    other = next(row for row in rows["callbacks"] if row["source"] == "create")
    other["problem"] = f"tells of the provider's task {OURS}; on record is {OTHER}"
    for table in tables:
        Transfer(before.database).load(table, [as_before(row) for row in rows[table]])
    assert before.migrate() == lacked
    after = {row["id"]: row for page in Transfer(before.database).pages("tasks") for row in page}
    sources = {name: row["id_source"] for name, row in after.items()}
    assert sources == {
        "created": "callback",
        "queried": "query",
        "called": "callback",
        "nothing": None,
    }
    for table in tables[1:]:
        remaining = [{**row} for page in Transfer(before.database).pages(table) for row in page]
        assert remaining == [{**row} for row in rows[table]]
    assert before.lists.page_of_quarantine(before=None, limit=9).rows[0].callback.body == b"?"
    mismatch = {**other, "id": 99, "digest": b"of another body", "outcome": "mismatch"}
    Transfer(before.database).load("callbacks", [mismatch])
    assert before.queries.callback(99).outcome is Outcome.MISMATCH


# -- adapters


@pytest.mark.parametrize("adapter", PROVIDERS.values(), ids=lambda adapter: adapter.name)
def test_each_adapter_declares_whether_callbacks_share_the_ids_of_responses(
    adapter: Provider,
) -> None:
    assert isinstance(adapter.shares_ids, bool)
    # whose documentation does not say whether it does
    assert adapter.shares_ids is (adapter.name != "appypie")
