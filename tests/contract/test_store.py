"""The contract of the stores; all stores run through the same cases."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from receiver import providers
from receiver.deliveries import Attempt, Delivery, File, State
from receiver.endpoints import Endpoint, Limits
from receiver.errors import NotFound, NotTheProtocol
from receiver.events import Source
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.hook_queues import Candidate
from receiver.stores.sql.transfer import Transfer
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task, Trust
from tests.support.attempts import notice_source
from tests.support.patience import PATIENCE
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
LATER = NOW + 60_000


@pytest.fixture
def ingest(store: Store) -> Ingest:
    return Ingest(store, [subscription("mail"), subscription("slack")])


def task(task_id: str = "task-1", **more: object) -> Task:
    new_task = Task(task_id, "kling", Status.CREATED, NOW, NOW, deadline_at=NOW + 90_000)
    return replace(new_task, **more)  # type: ignore[arg-type]


def ended(delivery: Delivery, outcome: str = "delivered", at: int = NOW + 5) -> Attempt:
    return Attempt(delivery.attempts, NOW, at, outcome, "ok")


def claim_one(store: Store, now: int = LATER) -> Delivery:
    (delivery,) = store.outbox.claim("worker-1", now, now + 10_000, 1)
    return delivery


# -- receiving callbacks


def test_a_new_task_is_recorded_before_anything_else(store: Store) -> None:
    store.inbox.create_task(task(reference="ORDER-7", account="shop2"))
    found = store.queries.task("task-1")
    assert (found.status, found.reference, found.account) == (Status.CREATED, "ORDER-7", "shop2")
    assert [move.status for move in store.queries.history("task-1").transitions] == ["created"]


def test_a_task_id_is_used_once(store: Store) -> None:
    store.inbox.create_task(task())
    with pytest.raises(ValueError, match="task-1"):
        store.inbox.create_task(task(reference="other"))
    assert store.queries.task("task-1").reference is None


def test_all_transitions_of_a_task_are_recorded(store: Store, ingest: Ingest) -> None:
    store.inbox.create_task(task())
    outcomes = [
        ingest.accept(callback(body(status))) for status in ("submitted", "processing", "succeed")
    ]
    assert outcomes == [Outcome.RECORDED] * 3
    history = store.queries.history("task-1")
    assert history.task.status is Status.SUCCEEDED
    assert history.task.provider_task_id == "828338674605220001"
    assert history.task.deadline_at is None
    moves = [move.status for move in history.transitions]
    assert moves == ["created", "submitted", "processing", "succeeded"]


def test_second_succeed_is_recorded_once(store: Store, ingest: Ingest) -> None:
    raw = body()
    assert ingest.accept(callback(raw)) is Outcome.RECORDED
    assert ingest.accept(callback(raw)) is Outcome.DUPLICATE
    assert ingest.accept(callback(body(updated_at=1_765_519_999_000))) is Outcome.DUPLICATE
    history = store.queries.history("task-1")
    assert [move.status for move in history.transitions] == ["succeeded"]
    assert len(history.deliveries) == 2
    # identical bytes are counted, different ones stored
    assert [stored.repeats for stored in history.callbacks] == [1, 0]


def test_a_late_callback_is_stored_and_changes_nothing(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback(body("succeed")))
    assert ingest.accept(callback(body("processing"))) is Outcome.STALE
    history = store.queries.history("task-1")
    assert history.task.status is Status.SUCCEEDED
    assert [stored.outcome for stored in history.callbacks] == [Outcome.RECORDED, Outcome.STALE]


def test_a_conflict_is_flagged_and_changes_nothing(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback(body("succeed")))
    assert ingest.accept(callback(body("failed"))) is Outcome.CONFLICT
    history = store.queries.history("task-1")
    assert history.task.status is Status.SUCCEEDED
    assert history.task.conflict
    assert len(history.deliveries) == 2


def test_a_queried_response_corrects_once_and_calls_the_hooks(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback(body("failed", task_status_msg="why")))
    answer = b'{"code": 0, "data": ' + body("succeed") + b"}"
    queried = callback(answer, source=Source.QUERY, trust=Trust.QUERIED)
    assert ingest.accept(queried) is Outcome.RECORDED
    history = store.queries.history("task-1")
    assert (history.task.status, history.task.reason) == (Status.SUCCEEDED, None)
    assert [move.corrected for move in history.transitions] == [False, True]
    assert len(history.deliveries) == 4
    assert ingest.accept(callback(body("failed", updated_at=1))) is Outcome.CONFLICT


def test_an_unknown_task_is_adopted(store: Store, ingest: Ingest) -> None:
    info = {"external_task_id": "ORDER-7"}
    assert ingest.accept(callback(body(task_info=info), "theirs-1")) is Outcome.RECORDED
    found = store.queries.task("theirs-1")
    assert (found.status, found.reference) == (Status.SUCCEEDED, "ORDER-7")


def test_a_callback_that_cannot_be_parsed_is_stored_and_can_be_replayed(
    store: Store, ingest: Ingest
) -> None:
    with pytest.raises(NotTheProtocol):
        ingest.accept(callback(body("completed")))
    (stored,) = store.lists.callbacks(outcome=Outcome.QUARANTINED)
    assert stored.callback.body == body("completed")
    assert stored.problem is not None
    assert "task_status" in stored.problem
    assert store.queries.task("task-1").status is Status.CREATED
    with pytest.raises(NotTheProtocol):  # it still cannot be parsed
        ingest.replay(stored.id)
    # parsed as by an improved adapter
    event = providers.get("kling").parse(callback(body("succeed")))
    assert store.inbox.reopen(stored, event, ingest.subscriptions) is Outcome.RECORDED
    assert store.queries.callback(stored.id).outcome is Outcome.RECORDED
    assert store.queries.task("task-1").status is Status.SUCCEEDED
    assert len(store.lists.deliveries()) == 2


def test_the_second_of_two_simultaneous_replays_keeps_the_outcome_of_the_first(
    store: Store, ingest: Ingest
) -> None:
    """Both replays read the callback while it was in quarantine."""
    with pytest.raises(NotTheProtocol):
        ingest.accept(callback(body("completed")))
    (stored,) = store.lists.callbacks(outcome=Outcome.QUARANTINED)
    event = providers.get("kling").parse(callback(body("succeed")))
    assert store.inbox.reopen(stored, event, ingest.subscriptions) is Outcome.RECORDED
    assert store.inbox.reopen(stored, event, ingest.subscriptions) is Outcome.DUPLICATE
    assert store.queries.callback(stored.id).outcome is Outcome.RECORDED
    assert len(store.lists.deliveries()) == len(ingest.subscriptions)


def test_a_replay_of_a_recorded_callback_changes_nothing(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback(body("succeed")))
    (stored,) = store.lists.callbacks()
    assert ingest.replay(stored.id) is Outcome.DUPLICATE
    assert store.queries.callback(stored.id) == stored
    assert len(store.lists.deliveries()) == 2


def test_the_raw_message_is_stored_byte_for_byte(store: Store, ingest: Ingest) -> None:
    raw = b" " + body() + b"\r\n"
    ingest.accept(callback(raw, headers={"User-Agent": "Apache", "X": "é"}))
    (stored,) = store.lists.callbacks()
    assert stored.callback.body == raw
    assert stored.callback.headers == {"User-Agent": "Apache", "X": "é"}


def test_a_task_of_another_provider_is_not_changed(store: Store, ingest: Ingest) -> None:
    store.inbox.create_task(task(provider="modellix"))
    with pytest.raises(NotTheProtocol, match="modellix"):
        ingest.accept(callback(body()))
    assert store.queries.task("task-1").status is Status.CREATED


def test_concurrent_callbacks_are_recorded_once(store: Store, ingest: Ingest) -> None:
    """Eight threads send every status of 40 tasks three times, out of order."""
    work = [
        (f"task-{number}", status)
        for status in ("succeed", "submitted", "processing")
        for number in range(40)
        for _ in range(3)
    ]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda one: ingest.accept(callback(body(one[1]), one[0])), work))
    moves = sum(len(store.queries.history(f"task-{number}").transitions) for number in range(40))
    assert outcomes.count(Outcome.RECORDED) == moves
    assert {store.queries.task(f"task-{number}").status for number in range(40)} == {
        Status.SUCCEEDED
    }
    assert len(store.lists.deliveries(limit=1000)) == 80


# -- the outbox


def test_only_subscribed_hooks_get_a_delivery(store: Store) -> None:
    subscriptions = [
        subscription("all"),
        subscription("modellix", providers=frozenset({"modellix"})),
        subscription("orders", match="ORDER-*"),
        subscription("gifts", match="GIFT-*"),
        replace(subscription("failures"), on=frozenset({"failed"})),
    ]
    store.inbox.create_task(task(reference="ORDER-7"))
    Ingest(store, subscriptions).accept(callback(body()))
    assert {delivery.hook for delivery in store.lists.deliveries()} == {"all", "orders"}


def test_a_delivery_is_claimed_by_one_worker(store: Store, ingest: Ingest) -> None:
    for number in range(10):
        ingest.accept(callback(body(), f"task-{number}"))
    with ThreadPoolExecutor(8) as pool:
        batches = list(
            pool.map(
                lambda name: store.outbox.claim(f"w{name}", LATER, LATER + 10_000, 5), range(8)
            )
        )
    # With concurrent claims, one may skip a row that another one has locked; the next claim gets
    # it.
    passed_over = store.outbox.claim("next", LATER, LATER + 10_000, 20)
    assert not (passed_over and isinstance(store, SqliteStore))
    batches.append(passed_over)
    ids = [delivery.id for batch in batches for delivery in batch]
    assert len(ids) == len(set(ids)) == 20


def test_a_delivery_that_is_not_due_is_not_claimed(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback())
    assert store.outbox.claim("w", NOW - 1, LATER, 5) == []
    assert store.outbox.next_due_at(NOW) == NOW


def test_the_oldest_delivery_is_claimed_first(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback(body(), "young", received_at=NOW + 100))
    ingest.accept(callback(body(), "old", received_at=NOW))
    assert claim_one(store).task_id == "old"


def test_a_delivered_delivery_stays_delivered(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback())
    delivery = claim_one(store)
    assert store.outbox.settle(delivery, ended(delivery), State.DELIVERED, None)
    (mine,) = [found for found in store.lists.deliveries() if found.id == delivery.id]
    assert (mine.state, mine.attempts, mine.due_at) == (State.DELIVERED, 1, None)
    assert store.queries.history("task-1").attempts[delivery.id] == (ended(delivery),)


class RecordingSlots:
    """Slots for deliveries of these hooks only, which remember the `candidates`."""

    def __init__(self, *hooks: str, takes_abandoned: bool = True) -> None:
        self.hooks = hooks
        self.takes_abandoned = takes_abandoned
        self.limits: dict[str, Limits] = {}
        self.candidates: list[Candidate] = []

    def has_slot(self, hook: str, *, timed_out: bool) -> bool:
        del timed_out
        return hook in self.hooks

    def begin(self, candidate: Candidate) -> bool:
        self.candidates.append(candidate)
        return True


def test_a_delivery_without_a_slot_is_not_claimed(store: Store) -> None:
    hooks = [subscription("mail"), subscription("slow")]
    Ingest(store, hooks).accept(callback())
    assert store.outbox.claim("w", LATER, LATER + 10_000, 5, RecordingSlots("other")) == []
    slots = RecordingSlots("mail")
    assert [found.hook for found in store.outbox.claim("w", LATER, LATER + 10_000, 5, slots)] == [
        "mail"
    ]
    assert slots.candidates == [Candidate(1, "mail", timed_out=False, abandoned=False)]


def test_a_candidate_describes_its_last_attempts(store: Store) -> None:
    ingest = Ingest(store, [subscription("mail")])
    for task in ("lost", "late", "fresh"):
        ingest.accept(callback(body(), task))
    lost, late, _ = store.outbox.claim("w", LATER, LATER + 10_000, 3)
    after = LATER + 20_000
    slow = Endpoint(lost.hook, 1, NOW, timed_out=True)
    assert store.outbox.settle(lost, ended(lost, "abandoned", after), State.PENDING, after)
    failed = ended(late, "failed", after)
    assert store.outbox.settle(late, failed, State.PENDING, after, change=lambda _: (slow, None))
    assert store.endpoints.of(lost.hook) == slow
    slots = RecordingSlots(lost.hook)
    store.outbox.claim("w", after, after + 10_000, 5, slots)
    known = {found.id: (found.timed_out, found.abandoned) for found in slots.candidates}
    assert known == {lost.id: (True, True), late.id: (True, False)}


def test_abandoned_deliveries_do_not_hide_others(store: Store) -> None:
    ingest = Ingest(store, [subscription("mail")])
    for number in range(5):
        ingest.accept(callback(body(), f"lost-{number}"))
    after = LATER + 20_000
    for lost in store.outbox.claim("w", LATER, LATER + 10_000, 5):
        assert store.outbox.settle(lost, ended(lost, "abandoned", after), State.PENDING, after)
    ingest.accept(callback(body(), "fresh", received_at=after))
    slots = RecordingSlots("mail", takes_abandoned=False)
    found = store.outbox.claim("w", after, after + 10_000, 2, slots)
    assert [delivery.task_id for delivery in found] == ["fresh"]


def test_a_lost_claim_changes_nothing(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback())
    lost = claim_one(store)
    after = LATER + 20_000
    assert lost.id in [delivery.id for delivery in store.outbox.expired(after)]
    assert store.outbox.settle(lost, ended(lost, "abandoned", after), State.PENDING, after)
    retried = next(
        found for found in store.outbox.claim("w2", after, after + 10_000, 5) if found.id == lost.id
    )
    assert retried.attempts == 2
    assert not store.outbox.settle(lost, ended(lost), State.DELIVERED, None)
    assert store.outbox.settle(retried, ended(retried), State.DELIVERED, None)


def test_a_renewed_claim_is_not_abandoned(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback())
    renewed = claim_one(store)
    after = LATER + 20_000
    store.outbox.renew([renewed], after + 10_000)
    assert store.outbox.expired(after) == []
    assert not store.outbox.settle(
        renewed, ended(renewed, "abandoned", after), State.PENDING, after
    )
    assert store.outbox.settle(renewed, ended(renewed), State.DELIVERED, None)


def test_a_worker_that_lost_its_claim_does_not_renew_another_claim(
    store: Store, ingest: Ingest
) -> None:
    ingest.accept(callback())
    lost = claim_one(store)
    after = LATER + 20_000
    assert store.outbox.settle(lost, ended(lost, "abandoned", after), State.PENDING, after)
    retried = next(
        found for found in store.outbox.claim("w2", after, after + 10_000, 5) if found.id == lost.id
    )
    store.outbox.renew([lost], after + 99_000)
    assert store.queries.delivery(lost.id).due_at == retried.due_at == after + 10_000


def test_a_hook_waits_for_the_hook_named_by_after(store: Store) -> None:
    hooks = [subscription("pictures"), subscription("mail", after="pictures")]
    Ingest(store, hooks).accept(callback())
    (first,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    assert first.hook == "pictures"
    store.outbox.settle(first, ended(first, "failed"), State.PENDING, LATER)
    # a failed attempt does not end the wait
    (again,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    assert again.hook == "pictures"
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png", b"jpeg")
    store.outbox.settle(again, ended(again), State.DELIVERED, None, [file])
    (second,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    assert second.hook == "mail"
    assert notice_source(store, second).notice.files == (file,)


def test_files_of_a_failed_attempt_are_passed_to_waiting_hooks(store: Store) -> None:
    hooks = [subscription("pictures"), subscription("mail", after="pictures")]
    Ingest(store, hooks).accept(callback())
    (first,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png", b"jpeg")
    store.outbox.settle(first, ended(first, "failed"), State.PENDING, LATER, [file])
    (again,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    store.outbox.settle(again, ended(again, "failed"), State.DEAD, None)
    (second,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    assert second.hook == "mail"
    assert notice_source(store, second).notice.files == (file,)
    assert store.queries.history("task-1").files == {first.id: (file,)}


def test_a_lost_claim_records_no_files(store: Store) -> None:
    Ingest(store, [subscription("pictures")]).accept(callback())
    (lost,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    store.outbox.settle(
        lost, ended(lost, "abandoned", LATER + 20_000), State.PENDING, LATER + 20_000
    )
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png")
    assert not store.outbox.settle(lost, ended(lost, "failed"), State.PENDING, LATER, [file])
    assert store.queries.history("task-1").files == {}


def test_a_hook_receives_its_own_files_since_the_last_redelivery(store: Store) -> None:
    Ingest(store, [subscription("a"), subscription("b")]).accept(callback())
    first, other = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png")
    store.outbox.settle(first, ended(first, "failed"), State.PENDING, LATER, [file])
    assert notice_source(store, other).notice.made == ()  # of another hook
    (again,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    assert notice_source(store, again).notice.made == (file,)
    store.outbox.settle(again, ended(again, "failed"), State.DEAD, None)
    store.outbox.redeliver(first.id, LATER)
    (afresh,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    notice = notice_source(store, afresh).notice
    assert (notice.files, notice.made) == ((file,), ())
    newer = replace(file, sha256="cd" * 32)
    store.outbox.settle(afresh, ended(afresh, "failed"), State.PENDING, LATER, [newer])
    (last,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    assert notice_source(store, last).notice.made == (newer,)


def test_files_from_before_the_migration_are_kept_and_downloaded_again(
    lacking: Callable[..., Store],
) -> None:
    store = lacking("0011_file_attempts")
    Ingest(store, [subscription("pictures")]).accept(callback())
    (delivery,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    row = {"delivery": delivery.id, "media_index": "0", "url": "/data/0.png", "sha256": "ab" * 32}
    Transfer(store.database).load("files", [{**row, "size": 3, "content_type": "image/png"}])
    assert store.migrate() == ["0011_file_attempts"]
    notice = notice_source(store, delivery).notice
    assert notice.files == (File("0", "/data/0.png", "ab" * 32, 3, "image/png"),)
    assert notice.made == ()


def test_a_dead_download_does_not_delay_the_mail(store: Store) -> None:
    hooks = [subscription("pictures"), subscription("mail", after="pictures")]
    Ingest(store, hooks).accept(callback())
    (first,) = store.outbox.claim("w", LATER, LATER + 10_000, 10)
    store.outbox.settle(first, ended(first, "failed"), State.DEAD, None)
    assert [found.hook for found in store.outbox.claim("w", LATER, LATER + 10_000, 10)] == ["mail"]


WAIT = 120_000  # ms
LIMITED = [subscription("pictures"), subscription("mail", after="pictures", wait_ms=WAIT)]


def claim_pictures(store: Store) -> Delivery:
    """Record a success for which mail waits at most WAIT, and claim the download's delivery."""
    Ingest(store, LIMITED).accept(callback(received_at=NOW))
    (pictures,) = store.outbox.claim("w", NOW, NOW + 10_000, 10)
    assert pictures.hook == "pictures"
    return pictures


def hooks_claimed(store: Store, now: int) -> list[str]:
    return [delivery.hook for delivery in store.outbox.claim("w", now, now + 10_000, 10)]


def test_a_limited_wait_ends_although_the_awaited_hook_keeps_failing(store: Store) -> None:
    pictures = claim_pictures(store)
    (mail,) = store.lists.deliveries(hook="mail")
    assert mail.is_waiting(NOW + WAIT - 1)
    store.outbox.settle(pictures, ended(pictures, "failed"), State.PENDING, NOW + 43_200_000)
    assert store.outbox.next_due_at(NOW + 6) == NOW + WAIT
    assert hooks_claimed(store, NOW + WAIT - 1) == []
    assert hooks_claimed(store, NOW + WAIT) == ["mail"]


def test_files_recorded_before_a_limited_wait_ends_are_in_the_notice(store: Store) -> None:
    pictures = claim_pictures(store)
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png", b"jpeg")
    later = NOW + 43_200_000
    store.outbox.settle(pictures, ended(pictures, "failed"), State.PENDING, later, [file])
    (mail,) = store.outbox.claim("w", NOW + WAIT, NOW + WAIT + 10_000, 10)
    assert notice_source(store, mail).notice.files == (file,)


@pytest.mark.parametrize(
    ("outcome", "state"), [("delivered", State.DELIVERED), ("failed", State.DEAD)]
)
def test_a_limited_wait_ends_with_the_awaited_delivery(
    store: Store, outcome: str, state: State
) -> None:
    pictures = claim_pictures(store)
    store.outbox.settle(pictures, ended(pictures, outcome), state, None)
    (mail,) = store.lists.deliveries(hook="mail")
    assert mail.due_at == NOW + 5
    assert not mail.is_waiting(NOW + 5)
    assert hooks_claimed(store, NOW + 5) == ["mail"]


def test_the_end_of_the_awaited_delivery_neither_postpones_nor_repeats(store: Store) -> None:
    """Overdue mail stays due; its retries and its success are not changed."""
    pictures = claim_pictures(store)
    (mail,) = store.outbox.claim("w", NOW + WAIT, NOW + WAIT + 10_000, 10)
    at, again_at = NOW + WAIT + 1, NOW + WAIT + 600_000
    store.outbox.settle(mail, ended(mail, "failed", at), State.PENDING, again_at)
    assert not store.queries.delivery(mail.id).is_waiting(at)
    store.outbox.settle(pictures, ended(pictures, at=at + 1), State.DELIVERED, None)
    assert store.queries.delivery(mail.id).due_at == again_at
    (mail,) = store.outbox.claim("w", again_at, again_at + 10_000, 10)
    store.outbox.settle(mail, ended(mail, at=again_at + 1), State.DELIVERED, None)
    store.outbox.redeliver(pictures.id, again_at + 2)
    (pictures,) = store.outbox.claim("w", again_at + 2, again_at + 10_000, 10)
    store.outbox.settle(pictures, ended(pictures, at=again_at + 3), State.DELIVERED, None)
    assert store.queries.delivery(mail.id).state is State.DELIVERED


def test_an_overdue_notification_keeps_its_due_time_when_the_awaited_delivery_ends(
    store: Store,
) -> None:
    pictures = claim_pictures(store)
    store.outbox.settle(pictures, ended(pictures, at=NOW + 2 * WAIT), State.DELIVERED, None)
    assert store.lists.deliveries(hook="mail")[0].due_at == NOW + WAIT


def test_a_limited_wait_ends_although_the_awaited_hook_is_paused(store: Store) -> None:
    store.endpoints.pause("pictures", NOW)
    Ingest(store, LIMITED).accept(callback(received_at=NOW))
    assert store.outbox.next_due_at(NOW) == NOW + WAIT
    assert hooks_claimed(store, NOW + WAIT) == ["mail"]


def test_a_hook_does_not_wait_for_one_that_is_not_subscribed_to_the_event(store: Store) -> None:
    hooks = [
        replace(subscription("pictures"), on=frozenset({"succeeded"})),
        subscription("mail", after="pictures"),
    ]
    Ingest(store, hooks).accept(callback(body("failed")))
    assert [found.hook for found in store.outbox.claim("w", LATER, LATER + 10_000, 10)] == ["mail"]


def test_a_dead_letter_is_kept_and_redelivered_with_all_retries(
    store: Store, ingest: Ingest
) -> None:
    ingest.accept(callback())
    delivery = claim_one(store)
    store.outbox.settle(delivery, ended(delivery, "failed"), State.DEAD, None)
    assert [found.id for found in store.lists.deliveries(state=State.DEAD)] == [delivery.id]
    assert store.metrics.backlog(LATER).dead == 1
    store.outbox.redeliver(delivery.id, LATER)
    again = next(
        found for found in store.outbox.claim("w", LATER, LATER + 1, 5) if found.id == delivery.id
    )
    assert (again.attempts, again.retries_from) == (2, 1)


def test_redelivering_an_unfinished_delivery_is_refused(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback())
    with pytest.raises(NotFound):
        store.outbox.redeliver(store.lists.deliveries()[0].id, NOW)
    with pytest.raises(NotFound):
        store.outbox.redeliver(99, NOW)


def test_a_delivery_contains_its_task_and_callback(store: Store, ingest: Ingest) -> None:
    store.inbox.create_task(task(reference="ORDER-7"))
    ingest.accept(callback())
    source = notice_source(store, claim_one(store))
    assert source.notice.id == "task-1:succeeded"
    assert source.notice.task.reference == "ORDER-7"
    assert source.callback is not None
    assert source.callback.body == body()


def test_a_commit_wakes_a_waiting_thread(store: Store, ingest: Ingest) -> None:
    stop, has_looked, woken = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        store.database.wait_for_commit(0.1, stop)  # an earlier commit
        has_looked.set()
        store.database.wait_for_commit(10 * PATIENCE, stop)
        woken.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    try:
        assert has_looked.wait(PATIENCE)
        ingest.accept(callback(body("processing")))
        assert woken.wait(PATIENCE), "a commit did not wake the waiter"
    finally:
        stop.set()
        waiter.join(PATIENCE)


def test_a_commit_between_check_and_wait_is_not_missed(store: Store, ingest: Ingest) -> None:
    stop = threading.Event()
    store.database.wait_for_commit(0.05, stop)
    ingest.accept(callback())
    timer = threading.Timer(PATIENCE, stop.set)
    timer.start()
    store.database.wait_for_commit(10 * PATIENCE, stop)
    timer.cancel()
    assert not stop.is_set()


# -- queries


def test_lists_are_newest_first_and_filtered(store: Store, ingest: Ingest) -> None:
    for number in range(3):
        ingest.accept(callback(body("succeed" if number else "failed"), f"task-{number}"))
    assert [found.id for found in store.lists.tasks()] == ["task-2", "task-1", "task-0"]
    assert [found.id for found in store.lists.tasks(status=Status.FAILED)] == ["task-0"]
    assert [found.id for found in store.lists.tasks(limit=1)] == ["task-2"]
    assert store.lists.tasks(provider="modellix") == []
    assert {found.hook for found in store.lists.deliveries(hook="mail")} == {"mail"}
    assert len(store.lists.callbacks(task_id="task-1")) == 1


def test_missing_rows_raise_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.queries.task("nobody")
    with pytest.raises(NotFound):
        store.queries.history("nobody")
    with pytest.raises(NotFound):
        store.queries.callback(7)


def test_the_heartbeat_of_a_worker_is_recorded(store: Store) -> None:
    assert store.activity.last_seen("worker") is None
    store.activity.heartbeat("w1", "worker", NOW)
    store.activity.heartbeat("w1", "worker", NOW + 1)
    store.activity.heartbeat("web", "web", NOW + 2)
    assert store.activity.last_seen("worker") == NOW + 1


def test_a_callback_that_names_another_provider_task_has_a_problem(
    store: Store, ingest: Ingest
) -> None:
    store.inbox.create_task(task())
    ingest.accept(callback(body("processing", "first")))
    assert ingest.accept(callback(body("succeed", "second"))) is Outcome.MISMATCH
    problems = [stored.problem for stored in store.queries.history("task-1").callbacks]
    assert problems == [None, "names provider task second; provider task first is on record"]
    assert store.queries.task("task-1").provider_task_id == "first"


def test_the_engine_is_named_with_its_version(store: Store) -> None:
    assert re.match(r"(SQLite|PostgreSQL) \d+\.\d+", store.database.version())
