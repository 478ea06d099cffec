"""One attempt at a delivery, and its effects; the time and the random number are passed in."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from structlog.testing import capture_logs

from receiver import providers
from receiver.deliveries import File, Notice, State
from receiver.delivery import attempt as attempt_module
from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.failures import unexpected
from receiver.delivery.worker_slots import Reservation
from receiver.errors import (
    ContentFailure,
    DeliveryFailure,
    EndpointGone,
    PermanentFailure,
    ResultGone,
    StoreUnavailable,
    TemporaryFailure,
    TimedOut,
)
from receiver.events import Callback, Event, Source
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.observability.metrics import ATTEMPTS, DOWNLOADS, Sample
from receiver.outgoing.retry import RetryPolicy
from receiver.stores.sql import endpoints, outbox
from receiver.stores.sql.claims import ClaimedDelivery
from receiver.stores.sql.database import Session
from receiver.stores.sql.outbox import Outbox, Settlement
from receiver.stores.sqlite import SqliteStore
from receiver.stores.sqlite.database import SqliteDatabase
from receiver.tasks import Trust
from receiver.text.display import hiding
from tests.support.attempts import current_notice, make_attempt
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import SECRET, body, callback, subscription

NOW = 1_765_519_851_000


class Scripted:
    """A hook with a scripted outcome, which remembers the notices that it received."""

    def __init__(self, *answers: Done | Exception) -> None:
        self.name = "mail"
        self.answers = list(answers)
        self.told: list[Notice] = []

    def send(self, notice: Notice) -> Done:
        self.told.append(notice)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


Prepared = tuple[DeliveryWorker, Scripted, Clock]


@pytest.fixture
def prepare(store: SqliteStore) -> Callable[..., Prepared]:
    def make(*answers: Done | Exception, status: str = "succeed") -> Prepared:
        Ingest(store, [subscription("mail")]).accept(callback(body(status)))
        hook, clock = Scripted(*answers), Clock()
        return DeliveryWorker(store, {"mail": hook}, clock=clock, chance=lambda: 0.5), hook, clock

    return make


def claim(store: SqliteStore, clock: Clock) -> ClaimedDelivery:
    (delivery,) = store.outbox.claim("w", clock.now, clock.now + 10_000, 1)
    return delivery


def test_a_hook_that_returns_has_delivered(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png")
    worker, hook, clock = prepare(Done("250 ok", (file,)))
    delivery = claim(store, clock)
    assert make_attempt(worker, delivery) is State.DELIVERED
    history = store.queries.history("task-1")
    (attempt,) = history.attempts[delivery.id]
    assert (attempt.number, attempt.outcome, attempt.answer) == (1, "delivered", "250 ok")
    assert history.files[delivery.id] == (file,)
    (notice,) = hook.told
    assert notice.id == "task-1:succeeded"
    assert [media.url for media in notice.media] == ["https://cdn.example/0.png"]


def test_a_temporary_failure_is_retried_with_backoff_until_it_is_dead(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare(*[TemporaryFailure("later")] * 8)
    waits = []
    for _ in range(7):
        assert make_attempt(worker, claim(store, clock)) is State.PENDING
        due_at = store.lists.deliveries()[0].due_at
        assert due_at is not None
        waits.append((due_at - clock.now) / 1000)
        clock.now = due_at
    assert waits == [5, 30, 120, 600, 3_600, 10_800, 28_800]
    assert make_attempt(worker, claim(store, clock)) is State.DEAD
    assert store.lists.deliveries()[0].state is State.DEAD
    assert store.outbox.next_due_at(NOW) is None


def test_a_permanent_failure_is_dead_immediately(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare(PermanentFailure("410 gone"))
    assert make_attempt(worker, claim(store, clock)) is State.DEAD
    (attempt,) = store.queries.history("task-1").attempts[1]
    assert (attempt.outcome, attempt.answer) == ("failed", "410 gone")


def test_retry_after_is_respected(store: SqliteStore, prepare: Callable[..., Prepared]) -> None:
    worker, _, clock = prepare(TemporaryFailure("busy", retry_after=77))
    make_attempt(worker, claim(store, clock))
    assert store.lists.deliveries()[0].due_at == NOW + 77_000


def test_an_expired_result_makes_the_task_due_for_a_query(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare(ResultGone("the result URL answered 404"))
    assert store.polling.next_deadline_at() is None
    assert make_attempt(worker, claim(store, clock)) is State.PENDING
    assert store.polling.next_deadline_at() == NOW


def test_an_expired_result_does_not_count_against_the_endpoint(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare(TemporaryFailure("no answer"), *[ResultGone("404")] * 2)
    for _ in range(3):
        make_attempt(worker, claim(store, clock))
        clock.now = store.outbox.next_due_at(clock.now) or clock.now
        endpoint = store.endpoints.of("mail")
        assert (endpoint.failures, endpoint.said) == (1, "no answer")


@pytest.mark.parametrize("kind", [ContentFailure, ResultGone])
def test_a_content_failure_is_retried_until_it_is_dead_and_opens_no_circuit(
    store: SqliteStore, prepare: Callable[..., Prepared], kind: type[ContentFailure]
) -> None:
    worker, _, clock = prepare(*[kind("not a picture")] * 8)
    for attempt in range(8):
        state = make_attempt(worker, claim(store, clock))
        assert state is (State.DEAD if attempt == 7 else State.PENDING)
        clock.now = store.lists.deliveries()[0].due_at or clock.now
    assert store.endpoints.all() == []


def test_a_content_failure_may_request_a_later_retry(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare(ContentFailure("not yet", retry_after=77))
    make_attempt(worker, claim(store, clock))
    assert store.lists.deliveries()[0].due_at == NOW + 77_000


@pytest.mark.parametrize(
    ("failure", "failures", "disabled"),
    [
        (TemporaryFailure("503"), 2, False),
        (ContentFailure("an odd event"), 1, False),
        (ResultGone("403"), 1, False),
        (PermanentFailure("422"), 0, False),  # the endpoint responded, so it works
        (EndpointGone("410"), 1, True),
    ],
)
def test_only_a_temporary_failure_counts_against_the_endpoint(
    store: SqliteStore,
    prepare: Callable[..., Prepared],
    failure: DeliveryFailure,
    failures: int,
    disabled: bool,
) -> None:
    worker, _, clock = prepare(TemporaryFailure("no answer"), failure)
    make_attempt(worker, claim(store, clock))
    clock.now += 60_000
    make_attempt(worker, claim(store, clock))
    endpoint = store.endpoints.of("mail")
    assert (endpoint.failures, endpoint.disabled_at is not None) == (failures, disabled)


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (ConnectionResetError(104, "reset"), TemporaryFailure),
        (TimeoutError("late"), TimedOut),
        (requests.ReadTimeout("late"), TimedOut),
        (subprocess.TimeoutExpired("shop", 7), TimedOut),
        (OSError(28, "No space left on device"), TemporaryFailure),
        (PermissionError(13, "Permission denied"), TemporaryFailure),
        (FileNotFoundError(2, "No such file or directory"), ContentFailure),
        (IsADirectoryError(21, "Is a directory"), ContentFailure),
        (KeyError("reference"), ContentFailure),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), ContentFailure),
        (ZeroDivisionError(), ContentFailure),
        (MemoryError(), ContentFailure),
    ],
)
def test_an_unexpected_error_that_is_not_a_network_error_is_a_content_failure(
    error: Exception, family: type[DeliveryFailure]
) -> None:
    assert type(unexpected(error, "text")) is family


def test_files_of_a_failed_attempt_are_recorded_and_passed_to_the_next(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    first, second = (File(n, f"/data/{n}.png", "ab" * 32, 3, "image/png") for n in "01")
    partly = TemporaryFailure("output 2: 503")
    partly.files = (first,)
    worker, hook, clock = prepare(partly, Done("downloaded 1 file", (second,)))
    delivery = claim(store, clock)
    assert make_attempt(worker, delivery) is State.PENDING
    assert store.queries.history("task-1").files[delivery.id] == (first,)
    assert store.endpoints.all() == []  # for one file
    clock.now += 60_000
    make_attempt(worker, claim(store, clock))
    assert [notice.made for notice in hook.told] == [(), (first,)]
    assert store.queries.history("task-1").files[delivery.id] == (first, second)
    counted: list[Sample] = []
    worker.meter.flush(lambda added, _: counted.extend(added))
    assert sum(one.value for one in counted if one.name == DOWNLOADS.name) == 2


def test_a_redelivered_dead_letter_has_all_its_retries_again(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare(PermanentFailure("no"), TemporaryFailure("later"))
    dead = claim(store, clock)
    make_attempt(worker, dead)
    store.outbox.redeliver(dead.id, NOW)
    assert make_attempt(worker, claim(store, clock)) is State.PENDING
    assert store.lists.deliveries()[0].due_at == NOW + 5_000


def test_a_delivery_that_kills_its_worker_is_dead_in_the_end(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare()
    for round_ in range(8):
        claim(store, clock)
        clock.now += 10_001
        (left,) = store.outbox.expired(clock.now)
        state = worker.abandon(left)
        assert state is (State.DEAD if round_ == 7 else State.PENDING)
        clock.now = store.outbox.next_due_at(NOW) or clock.now
    outcomes = [attempt.outcome for attempt in store.queries.history("task-1").attempts[1]]
    assert outcomes == ["abandoned"] * 8


def test_an_abandoned_attempt_uses_no_retry_of_a_delivery_that_killed_no_worker(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    """It shared its worker with a delivery that did, once before each of its own attempts."""
    worker, _, clock = prepare(*[TemporaryFailure("later")] * 8)
    waits = []
    for round_ in range(8):
        claim(store, clock)
        clock.now += 10_001
        (left,) = store.outbox.expired(clock.now)
        assert worker.abandon(left) is State.PENDING
        clock.now = store.outbox.next_due_at(NOW) or clock.now
        state = make_attempt(worker, claim(store, clock))
        assert state is (State.DEAD if round_ == 7 else State.PENDING)
        due_at = store.outbox.next_due_at(NOW) or clock.now
        waits.append((due_at - clock.now) / 1000)
        clock.now = due_at
    assert waits == [5, 30, 120, 600, 3_600, 10_800, 28_800, 0]


def partly(failure: DeliveryFailure, *, timed_out: bool) -> DeliveryFailure:
    """Return the failure of one of several outputs."""
    failure.files = (File("0", "/data/0.png", "ab" * 32, 3, "image/png"),)
    failure.timed_out = timed_out
    return failure


@pytest.mark.parametrize(
    ("answer", "timed_out"),
    [
        (TimedOut("no answer"), True),
        (partly(TemporaryFailure("one was slow"), timed_out=True), True),
        (partly(ResultGone("one was slow"), timed_out=True), True),
        (partly(TemporaryFailure("one was refused"), timed_out=False), False),
        (TemporaryFailure("503"), False),
        (ContentFailure("no picture"), False),
        (PermanentFailure("400"), False),
        (Done("ok"), False),
    ],
)
def test_the_last_attempt_decides_whether_an_endpoint_timed_out(
    store: SqliteStore,
    prepare: Callable[..., Prepared],
    answer: Done | DeliveryFailure,
    timed_out: bool,
) -> None:
    worker, _, clock = prepare(TimedOut("no answer"), answer)
    make_attempt(worker, claim(store, clock))
    assert store.endpoints.of("mail").timed_out
    clock.now += 60_000
    make_attempt(worker, claim(store, clock))
    assert store.endpoints.of("mail").timed_out is timed_out


def test_an_abandoned_attempt_does_not_change_whether_an_endpoint_timed_out(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare(TimedOut("no answer"))
    make_attempt(worker, claim(store, clock))
    clock.now += 60_000
    lost = claim(store, clock)
    clock.now += 10_001
    worker.abandon(lost)
    assert store.endpoints.of("mail").timed_out


def test_the_outcome_of_a_lost_claim_is_not_counted(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare(Done("ok"))
    lost = claim(store, clock)
    clock.now += 10_001
    worker.abandon(lost)
    make_attempt(worker, lost)  # its worker was only stalled
    counted: list[Sample] = []
    worker.meter.flush(lambda added, _: counted.extend(added))
    assert counted == [Sample(ATTEMPTS.name, ("mail", "retry"), 1)]


def test_a_delivery_whose_hook_was_removed_after_the_claim_waits_with_a_reason(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    _, _, clock = prepare()
    worker = DeliveryWorker(store, {}, clock=clock)
    for _ in range(20):  # more often than a delivery is retried
        assert make_attempt(worker, claim(store, clock)) is State.PENDING
    assert "not in the hooks file" in store.queries.history("task-1").attempts[1][0].answer
    assert store.endpoints.all() == []  # this does not count against an endpoint


def test_every_attempt_has_the_same_idempotency_key(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, hook, clock = prepare(TemporaryFailure("later"), Done("ok"))
    make_attempt(worker, claim(store, clock))
    clock.now += 60_000
    make_attempt(worker, claim(store, clock))
    assert [notice.id for notice in hook.told] == ["task-1:succeeded"] * 2


def test_a_refused_create_has_no_media(store: SqliteStore) -> None:
    refused = callback(
        b'{"code": 1201, "message": "no"}', source=Source.CREATE, trust=Trust.QUERIED
    )
    Ingest(store, [subscription("mail")]).accept(refused)
    hook, clock = Scripted(Done("ok")), Clock()
    make_attempt(DeliveryWorker(store, {"mail": hook}, clock=clock), claim(store, clock))
    assert hook.told[0].media == ()
    assert hook.told[0].task.reason == "refused: 1201 no"


def test_an_outcome_is_recorded_once_the_store_is_available_again(
    store: SqliteStore, prepare: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, _, clock = prepare(Done("ok"))
    delivery = claim(store, clock)
    monkeypatch.setattr(attempt_module, "RECORD_AGAIN_AFTER", 0)
    original, failures = SqliteDatabase.write, [StoreUnavailable("full")] * 3

    def write(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return original(*args)

    monkeypatch.setattr(SqliteDatabase, "write", write)
    assert make_attempt(worker, delivery) is State.DELIVERED
    assert store.lists.deliveries()[0].state is State.DELIVERED


def test_a_long_response_is_shortened(store: SqliteStore, prepare: Callable[..., Prepared]) -> None:
    worker, _, clock = prepare(Done("x" * 10_000))
    make_attempt(worker, claim(store, clock))
    assert len(store.queries.history("task-1").attempts[1][0].answer) == 2_000


@pytest.mark.parametrize("at", range(1990, 2002))
def test_no_part_of_a_secret_remains_where_a_response_is_shortened(
    store: SqliteStore, prepare: Callable[..., Prepared], at: int
) -> None:
    worker, _, clock = prepare(Done("x" * at + SECRET))
    make_attempt(replace(worker, hide=hiding([SECRET])), claim(store, clock))
    assert store.queries.history("task-1").attempts[1][0].answer == ("x" * at + "…")[:2_000]


def test_the_notice_has_its_documented_form(store: SqliteStore, tmp_path: Path) -> None:
    Ingest(store, [subscription("mail")]).accept(callback(body(final_unit_deduction="0.5")))
    clock = Clock()
    notice = current_notice(DeliveryWorker(store, {}, clock=clock), claim(store, clock))
    notice = notice.with_files((File("0", str(tmp_path), "ab" * 32, 3, "image/png"),))
    assert notice.as_json() == {
        "id": "task-1:succeeded",
        "type": "task.succeeded",
        "occurred_at": "2025-12-12T06:10:50.000Z",
        "task": {
            "id": "task-1",
            "provider": "kling",
            "account": "default",
            "provider_task_id": "828338674605220001",
            "reference": None,
            "model": None,
            "status": "succeeded",
            "reason": None,
            "cost": "0.5",
            "cost_unit": "units",
            "created_at": "2025-12-12T06:10:51.000Z",
            "given_up_at": None,
            "metadata": {},
        },
        "media": [
            {
                "kind": "image",
                "index": "0",
                "url": "https://cdn.example/0.png",
                "expires_at": "2026-01-11T06:10:50.000Z",
                "file": str(tmp_path),
                "sha256": "ab" * 32,
                "size": 3,
            }
        ],
        "trust": "token",
        "corrected": False,
    }


class Hold:
    """Holds the next exchange of the outbox, and notes how many attempts each one settled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.entered, self.may_end = threading.Event(), threading.Event()
        original = Outbox.exchange

        def exchange(outbox: Outbox, settlements: Sequence[Settlement], *args: Any) -> Any:
            self.sizes.append(len(settlements))
            if not self.entered.is_set():
                self.entered.set()
                assert self.may_end.wait(PATIENCE)
            return original(outbox, settlements, *args)

        monkeypatch.setattr(Outbox, "exchange", exchange)


def settled_together(worker: DeliveryWorker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make attempts, all but one of which end during an exchange; return the exchanges' sizes."""
    first, *others = worker.claim()
    hold, stop = Hold(monkeypatch), threading.Event()
    stop.set()
    with ThreadPoolExecutor(1 + len(others)) as pool:
        futures = [pool.submit(worker.run, first, stop)]
        assert hold.entered.wait(PATIENCE)
        futures += [pool.submit(worker.run, ready, stop) for ready in others]
        wait_until(lambda: worker.slots.free == worker.concurrency)  # all of them have ended
        hold.may_end.set()
        for future in futures:
            assert future.result(PATIENCE) is None
    return hold.sizes


def accepted(store: SqliteStore, count: int, *hooks: str) -> None:
    for number in range(count):
        subscriptions = [subscription(hook) for hook in hooks]
        Ingest(store, subscriptions).accept(callback(body(), f"task-{number}"))


def test_attempts_that_end_while_others_are_recorded_are_recorded_together(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted(store, 4, "mail")
    hook = Scripted(*[Done("ok")] * 4)
    worker = DeliveryWorker(store, {"mail": hook}, clock=Clock(), concurrency=8)
    assert settled_together(worker, monkeypatch) == [1, 3]
    assert len(store.lists.deliveries(state=State.DELIVERED)) == 4
    counted: list[Sample] = []
    worker.meter.flush(lambda added, _: counted.extend(added))
    assert Sample(ATTEMPTS.name, ("mail", "delivered"), 4) in counted
    assert not worker.is_busy


def test_an_outcome_that_cannot_be_recorded_loses_no_other_one(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted(store, 4, "mail")
    broken = File("0", "/data/0.png", "ab" * 32, [], "image/png")  # type: ignore[arg-type]
    hook = Scripted(Done("ok"), Done("ok", (broken,)), Done("ok"), Done("ok"))
    worker = DeliveryWorker(store, {"mail": hook}, clock=Clock(), concurrency=8)
    with capture_logs() as lines:
        assert settled_together(worker, monkeypatch) == [1, 3]
    errors = [line["event"] for line in lines if line["log_level"] == "error"]
    assert sorted(errors) == ["an attempt broke", "outcomes were recorded one by one"]
    assert len(store.lists.deliveries(state=State.DELIVERED)) == 3
    assert len(store.lists.deliveries(state=State.CLAIMED)) == 1  # until its lease expires
    assert not worker.is_busy


def test_an_outcome_that_the_record_refuses_does_not_delay_the_others(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted(store, 4, "mail")
    hook = Scripted(*[Done("ok")] * 4)
    worker = DeliveryWorker(store, {"mail": hook}, clock=Clock(), concurrency=8)
    monkeypatch.setattr(attempt_module, "RECORD_AGAIN_AFTER", 0)
    original = endpoints.apply

    def apply(session: Session, hook: str, changes: Sequence[tuple[int, Any, int]]) -> None:
        if any(delivery_id == 2 for delivery_id, _, _ in changes):
            raise StoreUnavailable("a check of the database failed")
        original(session, hook, changes)

    monkeypatch.setattr(endpoints, "apply", apply)
    assert settled_together(worker, monkeypatch) == [1, 3]
    assert len(store.lists.deliveries(state=State.DELIVERED)) == 3
    assert store.queries.delivery(2).state is State.CLAIMED


def test_several_outcomes_that_the_record_refuses_are_tried_a_limited_number_of_times(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise no other attempt could record its outcome any more."""
    accepted(store, 4, "mail")
    hook = Scripted(*[Done("ok")] * 4)
    worker = DeliveryWorker(store, {"mail": hook}, clock=Clock(), concurrency=8)
    monkeypatch.setattr(attempt_module, "RECORD_AGAIN_AFTER", 0)
    original, refusals = endpoints.apply, [StoreUnavailable("refused")] * 100

    def apply(session: Session, hook: str, changes: Sequence[tuple[int, Any, int]]) -> None:
        if any(delivery_id > 1 for delivery_id, _, _ in changes) and refusals:
            raise refusals.pop()
        original(session, hook, changes)

    monkeypatch.setattr(endpoints, "apply", apply)
    assert settled_together(worker, monkeypatch) == [1, 3]
    assert len(store.lists.deliveries(state=State.CLAIMED)) == 3
    assert len(refusals) > 50
    assert not worker.is_busy


def test_an_error_of_the_claims_loses_no_outcome(
    store: SqliteStore, prepare: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    def select_claimable(*_: object) -> list[int]:
        raise ZeroDivisionError("a mistake of ours")

    worker, _, clock = prepare(Done("ok"))
    (ready,) = worker.keep([claim(store, clock)], Reservation(worker.slots))
    monkeypatch.setattr(outbox, "select_claimable", select_claimable)
    assert worker.run(ready, threading.Event()) is None
    assert store.lists.deliveries()[0].state is State.DELIVERED


def test_the_next_delivery_is_claimed_with_the_outcome(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted(store, 3, "mail")
    hook, clock, stop = Scripted(*[Done("ok")] * 3), Clock(), threading.Event()
    worker = DeliveryWorker(store, {"mail": hook}, clock=clock, concurrency=1)
    (ready,) = worker.claim()
    monkeypatch.delattr(Outbox, "claim")  # the dispatcher's way
    following = worker.run(ready, stop)
    assert following is not None
    assert worker.slots.free == 0
    assert store.queries.delivery(following.delivery.id).state is State.CLAIMED
    stop.set()
    assert worker.run(following, stop) is None
    assert worker.slots.free == 1
    assert [notice.task.id for notice in hook.told] == ["task-0", "task-1"]
    assert not worker.is_busy


def test_a_delivery_that_is_due_again_immediately_keeps_the_lease_of_its_next_attempt(
    store: SqliteStore, prepare: Callable[..., Prepared]
) -> None:
    worker, _, clock = prepare(TemporaryFailure("no"), Done("ok"))
    worker = replace(worker, policy=RetryPolicy(delays=(0.0,)), concurrency=1)
    (ready,) = worker.claim()
    again = worker.run(ready, threading.Event())
    assert again is not None
    assert (again.delivery.id, again.delivery.attempts) == (ready.delivery.id, 2)
    clock.now += 5_000
    worker.upkeep()
    assert store.lists.deliveries()[0].due_at == clock.now + attempt_module.LEASE
    assert worker.run(again, threading.Event()) is None
    assert store.lists.deliveries()[0].state is State.DELIVERED


def test_a_message_is_parsed_once_for_all_hooks(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted(store, 2, "mail", "chat", "books")
    parsed: list[str | None] = []
    original = providers.parse

    def parse(message: Callback) -> Event:
        parsed.append(message.task_id)
        return original(message)

    monkeypatch.setattr(providers, "parse", parse)
    hooks = {name: Scripted() for name in ("mail", "chat", "books")}
    ready = DeliveryWorker(store, hooks, clock=Clock(), concurrency=64).claim()
    assert len(ready) == 6
    assert all(isinstance(one.notice, Notice) and one.notice.media for one in ready)
    assert sorted(map(str, parsed)) == ["task-0", "task-1"]


def test_a_damaged_message_fails_only_its_own_delivery(store: SqliteStore, tmp_path: Path) -> None:
    accepted(store, 2, "mail")
    with closing(sqlite3.connect(tmp_path / "receiver.db", isolation_level=None)) as database:
        database.execute("pragma ignore_check_constraints = on")
        database.execute("update callbacks set source = 'nonsense' where id = 1")
    hook = Scripted(Done("ok"))
    worker = DeliveryWorker(store, {"mail": hook}, clock=Clock())
    for ready in worker.claim():
        worker.run(ready, threading.Event())
    first, second = sorted(store.lists.deliveries(), key=lambda delivery: delivery.id)
    assert (first.state, second.state) == (State.PENDING, State.DELIVERED)
    assert "nonsense" in store.queries.attempts([first])[first.id][0].answer
