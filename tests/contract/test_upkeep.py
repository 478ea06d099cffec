"""The other promises of every store: about endpoints, repair, rejections and retention."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from receiver import providers
from receiver.deliveries import Attempt, Delivery, File, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.endpoints import AlertKind, Circuit, Endpoint
from receiver.errors import NotFound, PermanentFailure
from receiver.events import Source
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.activity import Rejection
from receiver.stores.sql.metrics import Backlog
from receiver.stores.sql.repair import DeliverySelection
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task
from tests.support.attempts import current_notice
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
LATER = NOW + 60_000
DAY = 86_400_000
only_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # the test reads the file


def succeed(store: Store, *tasks: str, hooks: tuple[str, ...] = ("mail",), at: int = NOW) -> None:
    ingest = Ingest(store, [subscription(hook) for hook in hooks])
    for task in tasks:
        ingest.accept(callback(body(), task, received_at=at))


def claim(store: Store, limit: int = 10, now: int = LATER) -> list[Delivery]:
    return list(store.outbox.claim("w", now, now + 10_000, limit))


def settle(store: Store, delivery: Delivery, state: State, at: int = NOW) -> None:
    due_at = at if state is State.PENDING else None
    store.outbox.settle(delivery, Attempt(delivery.attempts, at, at, "failed", "no"), state, due_at)


def end_all(store: Store, state: State = State.DELIVERED) -> None:
    while found := claim(store, 50):
        for delivery in found:
            settle(store, delivery, state)


def make(store: Store, endpoint: Endpoint, alert: AlertKind | None = None) -> None:
    """Record the endpoint by an attempt at a delivery of a new task."""
    Ingest(store, [subscription(endpoint.hook)]).accept(callback(body(), f"of-{endpoint.hook}"))
    store.endpoints.resume(endpoint.hook)
    (delivery,) = [found for found in claim(store, 99) if found.hook == endpoint.hook]
    attempt = Attempt(1, NOW, NOW, "failed", "no")
    store.outbox.settle(delivery, attempt, State.DEAD, None, change=lambda _: (endpoint, alert))


OPEN = Endpoint("slow", 5, NOW, 1, LATER + 30_000, said="no answer")


# -- endpoints


def test_an_unknown_endpoint_has_a_closed_circuit(store: Store) -> None:
    assert store.endpoints.all() == []
    assert store.endpoints.of("mail").circuit(NOW) is Circuit.CLOSED


def test_an_endpoint_is_stored_as_the_attempt_left_it(store: Store) -> None:
    make(store, OPEN)
    assert store.endpoints.all() == [OPEN]
    assert store.endpoints.of("slow") == OPEN


def test_deliveries_with_an_open_circuit_wait_without_attempts(store: Store) -> None:
    make(store, OPEN)
    succeed(store, "a", "b", hooks=("slow", "mail"))
    assert {found.hook for found in claim(store)} == {"mail"}
    assert [
        found.attempts for found in store.lists.deliveries(hook="slow", state=State.PENDING)
    ] == [
        0,
        0,
    ]
    assert store.outbox.next_due_at(LATER) == OPEN.retry_at


def test_a_half_open_circuit_allows_one_delivery_at_a_time(store: Store) -> None:
    make(store, OPEN)
    succeed(store, "a", "b", "c", hooks=("slow",))
    probed_at = LATER + 30_000
    (probe,) = claim(store, now=probed_at)
    assert claim(store, now=probed_at + 1) == []
    settle(store, probe, State.PENDING, at=probed_at)
    assert len(claim(store, now=probed_at + 2)) == 1


def test_deliveries_of_a_paused_endpoint_wait_until_it_is_resumed(store: Store) -> None:
    succeed(store, "a")
    store.endpoints.pause("mail", NOW)
    assert claim(store) == []
    assert store.outbox.next_due_at(LATER) is None
    assert store.endpoints.resume("mail")
    assert not store.endpoints.resume("mail")
    assert len(claim(store)) == 1


def test_waiting_deliveries_of_a_paused_hook_delay_no_other_hook(store: Store) -> None:
    succeed(store, *(f"task-{number}" for number in range(60)), hooks=("slow",))
    store.endpoints.pause("slow", NOW)
    succeed(store, "last", hooks=("mail",))
    assert [found.hook for found in claim(store, 4)] == ["mail"]


def test_deliveries_held_by_a_pause_or_a_circuit_are_not_backlog(store: Store) -> None:
    make(store, OPEN)
    succeed(store, "a", "b", hooks=("slow", "paused"))
    store.endpoints.pause("paused", NOW)
    assert store.metrics.backlog(LATER) == Backlog(4, 1, None, held=4)
    succeed(store, "c", hooks=("mail",), at=NOW + 1000)
    assert store.metrics.backlog(LATER) == Backlog(5, 1, NOW + 1000, held=4)
    assert store.metrics.backlog(LATER, ["mail", "slow"]) == Backlog(5, 1, NOW + 1000, held=4)


def test_deliveries_of_a_missing_hook_are_not_backlog(store: Store) -> None:
    succeed(store, "a", "b", hooks=("gone",))
    succeed(store, "c", hooks=("mail",), at=NOW + 1000)
    assert store.metrics.backlog(LATER) == Backlog(3, 0, NOW, held=0)
    assert store.metrics.backlog(LATER, ["mail"]) == Backlog(3, 0, NOW + 1000, held=2)
    assert store.metrics.backlog(LATER, []) == Backlog(3, 0, None, held=3)


def test_a_missing_probe_is_backlog_from_its_due_time(store: Store) -> None:
    """A missing probe shows that no worker runs; the time for which a circuit is open does not."""
    make(store, OPEN)
    succeed(store, "a", "b", hooks=("slow",))
    probed_at = LATER + 30_000
    assert store.metrics.backlog(probed_at + 9).oldest_due_at == probed_at
    (probe,) = claim(store, now=probed_at + 9)
    assert store.metrics.backlog(probed_at + 10) == Backlog(1, 1, None, held=1)
    settle(store, probe, State.DELIVERED)
    store.endpoints.resume("slow")
    assert store.metrics.backlog(probed_at + 10) == Backlog(1, 1, NOW, held=0)


def test_the_size_of_a_record_is_known(store: Store) -> None:
    space = store.database.space()
    assert space.used > 10_000
    is_sqlite = isinstance(store, SqliteStore)
    assert (space.free is not None) is is_sqlite
    assert space.free is None or space.free > 0


def test_a_hook_with_many_deliveries_leaves_slots_for_others(store: Store) -> None:
    """Its older deliveries use two of three slots; the next free one belongs to another hook."""
    succeed(store, *"abcdef", hooks=("slow",), at=NOW - 1000)
    claim(store, 2)
    succeed(store, "g", hooks=("mail",))
    assert [found.hook for found in claim(store, 1)] == ["mail"]


def test_an_alert_is_returned_until_it_was_sent(store: Store) -> None:
    make(store, OPEN, AlertKind.PAUSED)
    (alert,) = store.endpoints.take_alerts(LATER, LATER + 60_000)
    assert (alert.hook, alert.kind, alert.said) == ("slow", AlertKind.PAUSED, "no answer")
    assert store.endpoints.take_alerts(LATER + 59_999, LATER) == []
    assert store.endpoints.take_alerts(LATER + 60_000, LATER + 120_000) == [alert]
    store.endpoints.alert_sent(alert.id)
    assert store.endpoints.take_alerts(LATER + 999_999, LATER) == []


def test_alerts_have_different_ids(store: Store) -> None:
    seen = set()
    for hook in ("a", "b", "c"):
        make(store, replace(OPEN, hook=hook), AlertKind.PAUSED)
        (alert,) = store.endpoints.take_alerts(LATER, LATER)
        store.endpoints.alert_sent(alert.id)
        seen.add(alert.id)
    assert len(seen) == 3


def test_an_attempt_whose_claim_was_lost_does_not_change_the_endpoint(store: Store) -> None:
    succeed(store, "a")
    (lost,) = claim(store)
    settle(store, lost, State.DEAD)
    attempt = Attempt(1, NOW, NOW, "failed", "no")
    assert not store.outbox.settle(
        lost, attempt, State.DEAD, None, change=lambda _: (OPEN, AlertKind.PAUSED)
    )
    assert store.endpoints.all() == []


# -- repair


def test_dead_letters_are_redelivered_by_filter_and_others_are_not(store: Store) -> None:
    succeed(store, "a", "b", hooks=("mail", "slack"))
    end_all(store, State.DEAD)
    dry = store.repair.redeliver_all(DeliverySelection(hook="mail"), LATER, dry_run=True)
    assert dry.changed == 2
    assert store.lists.deliveries(state=State.PENDING) == []
    assert store.repair.redeliver_all(DeliverySelection(hook="mail"), LATER) == dry
    due = claim(store)
    assert [(found.task_id, found.hook) for found in due] == [("a", "mail"), ("b", "mail")]
    assert [found.retries_from for found in due] == [1, 1]  # a full set of retries


@pytest.mark.parametrize(
    ("selection", "tasks"),
    [
        (DeliverySelection(), ["old", "new"]),
        (DeliverySelection(since=NOW), ["new"]),
        (DeliverySelection(until=NOW), ["old"]),
        (DeliverySelection(task_id="old"), ["old"]),
        (DeliverySelection(provider="kling", status="succeeded"), ["old", "new"]),
        (DeliverySelection(provider="appypie"), []),
        (DeliverySelection(status="failed"), []),
        (DeliverySelection(state=State.DELIVERED), []),
    ],
)
def test_which_deliveries_a_filter_selects(
    store: Store, selection: DeliverySelection, tasks: list[str]
) -> None:
    succeed(store, "old", at=NOW - DAY)
    succeed(store, "new")
    end_all(store, State.DEAD)
    assert store.repair.redeliver_all(selection, LATER).changed == len(tasks)
    assert [found.task_id for found in claim(store)] == tasks


def test_redelivery_proceeds_in_steps_and_selects_nothing_twice(store: Store) -> None:
    succeed(store, *"abcde")
    end_all(store, State.DEAD)
    step, changed = store.repair.redeliver_all(DeliverySelection(), LATER, limit=2), []
    while True:
        changed.append(step.changed)
        end_all(store, State.DEAD)  # a fast worker, and a hook that still refuses
        if step.next is None:
            break
        step = store.repair.redeliver_all(DeliverySelection(), LATER, after=step.next, limit=2)
    assert changed == [2, 2, 1]


def test_a_new_hook_gets_missing_deliveries(store: Store) -> None:
    succeed(store, "too-old", at=NOW - DAY)
    succeed(store, "a", "b")
    succeed(store, "c", hooks=("mail", "later"))  # it existed already
    end_all(store)
    new_hook = subscription("later")
    assert store.repair.catch_up(new_hook, NOW, LATER, dry_run=True).changed == 2
    assert store.lists.deliveries(hook="later", state=State.PENDING) == []
    assert store.repair.catch_up(new_hook, NOW, LATER).changed == 2
    assert {found.task_id for found in claim(store)} == {"a", "b"}
    assert store.repair.catch_up(new_hook, NOW, LATER).changed == 0


def test_a_new_hook_gets_only_subscribed_events(store: Store) -> None:
    store.inbox.create_task(Task("ours", "kling", Status.CREATED, NOW, NOW, reference="ORDER-7"))
    succeed(store, "ours", "a")
    narrow = subscription("later", match="ORDER-*")
    assert store.repair.catch_up(narrow, NOW, LATER).changed == 1
    assert [found.task_id for found in store.lists.deliveries(hook="later")] == ["ours"]


def test_catching_up_proceeds_in_steps(store: Store) -> None:
    succeed(store, *(f"task-{number}" for number in range(7)))
    step = store.repair.catch_up(subscription("later"), NOW, LATER, limit=3)
    created, rounds = step.changed, 1
    while step.next is not None:
        step = store.repair.catch_up(subscription("later"), NOW, LATER, before=step.next, limit=3)
        created, rounds = created + step.changed, rounds + 1
    assert created == 7
    assert rounds >= 3


def test_a_caught_up_delivery_waits_only_for_a_pending_delivery(store: Store) -> None:
    succeed(store, "a", "b", hooks=("pictures",))
    (first, _) = claim(store)
    settle(store, first, State.DELIVERED)
    store.repair.catch_up(subscription("later", after="pictures"), NOW, LATER)
    waits = {found.task_id: found.due_at for found in store.lists.deliveries(hook="later")}
    assert waits == {"a": LATER, "b": None}
    store.repair.catch_up(subscription("mail", after="pictures", wait_ms=120_000), NOW, LATER)
    waits = {found.task_id: found.due_at for found in store.lists.deliveries(hook="mail")}
    assert waits == {"a": LATER, "b": LATER + 120_000}


# -- rejections


def rejection(number: int) -> Rejection:
    return Rejection(NOW + number, "203.0.113.9", "wrong token", "POST", "/callbacks/kling/…/…", 3)


def test_rejections_are_listed_newest_first(store: Store) -> None:
    store.activity.add_rejections([rejection(1), rejection(2)])
    assert store.activity.rejections() == [rejection(2), rejection(1)]
    assert store.activity.rejections(1) == [rejection(2)]


def test_only_the_newest_thousand_rejections_are_kept(store: Store) -> None:
    for start in range(0, 2400, 600):
        store.activity.add_rejections([rejection(start + number) for number in range(600)])
    stored = store.activity.rejections(9999)
    assert len(stored) == 1000
    assert stored[-1] == rejection(1400)


# -- retention


def bodies(store: Store, task: str) -> list[bytes]:
    return [stored.callback.body for stored in store.lists.callbacks(task_id=task)]


def test_a_payload_is_pruned_and_its_key_remains(store: Store) -> None:
    succeed(store, "a")
    end_all(store)
    step = store.retention.prune(NOW + 1)
    assert step.callbacks == 1
    assert step.bytes > len(body())
    assert step.next is None
    assert bodies(store, "a") == [b""]
    again = Ingest(store, [subscription("mail")]).accept(callback(body(), "a"))
    assert again is Outcome.DUPLICATE
    assert store.queries.task("a").status is Status.SUCCEEDED
    assert claim(store) == []


def test_responses_and_thumbnails_are_pruned_with_the_payload(store: Store) -> None:
    succeed(store, "a")
    (delivery,) = claim(store)
    picture = File("0", "/data/0.png", "ab" * 32, 3, "image/png", b"small")
    attempt = Attempt(1, NOW, NOW, "delivered", "a long answer")
    store.outbox.settle(delivery, attempt, State.DELIVERED, None, [picture])
    store.retention.prune(NOW + 1)
    history = store.queries.history("a")
    assert [attempt.answer for attempt in history.attempts[delivery.id]] == [""]
    (stored,) = history.files[delivery.id]
    assert stored == replace(picture, thumbnail=None)  # the file itself belongs to the user


@pytest.mark.parametrize("state", [State.PENDING, State.CLAIMED, State.DEAD])
def test_nothing_undelivered_is_pruned(store: Store, state: State) -> None:
    succeed(store, "a", hooks=("mail", "slack"))
    for delivery in claim(store):
        if delivery.hook == "mail":
            settle(store, delivery, State.DELIVERED)
        elif state is not State.CLAIMED:
            settle(store, delivery, state)
    assert store.retention.prune(NOW + DAY).callbacks == 0
    assert bodies(store, "a") == [body()]
    dead_too = store.retention.prune(NOW + DAY, dead_too=True).callbacks
    assert dead_too == (1 if state is State.DEAD else 0)


def test_an_open_task_is_not_pruned_but_a_given_up_one_is(store: Store) -> None:
    Ingest(store).accept(callback(body("processing"), "open"))
    Ingest(store).accept(callback(body("processing"), "given-up"))
    store.inbox.give_up("given-up", NOW, [])
    assert store.retention.prune(NOW + DAY).callbacks == 1
    assert bodies(store, "open") == [body("processing")]
    assert bodies(store, "given-up") == [b""]


def test_pruning_proceeds_in_steps_and_skips_what_is_needed(store: Store) -> None:
    for number in range(9):
        status = "processing" if number % 3 == 0 else "succeed"
        Ingest(store).accept(
            callback(body(status), f"task-{number}", received_at=NOW + number // 4)
        )
    step, pruned, rounds = store.retention.prune(NOW + DAY, limit=2), 0, 0
    while True:
        pruned, rounds = pruned + step.callbacks, rounds + 1
        if step.next is None:
            break
        step = store.retention.prune(NOW + DAY, after=step.next, limit=2)
    assert pruned == 6
    assert rounds == 5


def test_recent_payloads_are_not_pruned(store: Store) -> None:
    succeed(store, "a")
    end_all(store)
    assert store.retention.prune(NOW).callbacks == 0


def test_a_message_without_a_task_is_pruned_by_its_age(store: Store) -> None:
    store.inbox.quarantine(replace(callback(b"{}"), task_id=None), "not the protocol")
    assert store.retention.prune(NOW + 1).callbacks == 1
    assert [stored.callback.body for stored in store.lists.callbacks()] == [b""]


def test_a_pruned_event_cannot_be_delivered_again(store: Store) -> None:
    succeed(store, "a")
    end_all(store)
    store.retention.prune(NOW + 1)
    store.outbox.redeliver(store.lists.deliveries()[0].id, LATER)
    (delivery,) = claim(store)
    with pytest.raises(PermanentFailure, match="pruned"):
        current_notice(DeliveryWorker(store, {}), delivery)


@only_sqlite
def test_space_is_returned_to_the_file_system(store: Store, tmp_path: Path) -> None:
    for number in range(40):
        large = body("succeed", padding="x" * 50_000)
        Ingest(store).accept(callback(large, f"task-{number}"))
    store.database.shrink(0)
    before = (tmp_path / "receiver.db").stat().st_size
    store.retention.prune(NOW + 1)
    left = store.database.shrink(0)
    assert store.database.shrink(10) == left - 10
    while left:
        left = store.database.shrink(100)
    after = (tmp_path / "receiver.db").stat().st_size
    assert after < before / 4
    assert not (tmp_path / "receiver.db-wal").stat().st_size
    store.check_schema()


# -- forgetting

SECRET_WORDS = b"Anna of Example Street"


def known_customer(store: Store) -> Delivery:
    """Record a task with everything that may identify a person."""
    reference = SECRET_WORDS.decode()
    store.inbox.create_task(Task("a", "kling", Status.CREATED, NOW, NOW, reference=reference))
    raw = body("failed", task_status_msg=reference)
    ingest = Ingest(store, [subscription("mail"), subscription("slack")])
    ingest.accept(callback(raw, "a", headers={"X-Customer": reference}))
    store.idempotency.claim("key", b"digest", "a", NOW, NOW + 1)
    delivery, other = claim(store)
    picture = File("0", "/data/0.png", "ab" * 32, 3, "image/png", SECRET_WORDS)
    attempt = Attempt(1, NOW, NOW, "delivered", f"told {reference}")
    store.outbox.settle(delivery, attempt, State.DELIVERED, None, [picture])
    settle(store, other, State.PENDING)
    return delivery


@only_sqlite
def test_no_word_of_a_forgotten_task_remains_in_the_file(store: Store, tmp_path: Path) -> None:
    known_customer(store)
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    content = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("receiver.db*")))
    assert SECRET_WORDS not in content
    assert store.queries.history("a").forgotten_at == LATER  # the time of the erasure remains


@only_sqlite
def test_the_words_are_in_the_file_before_forgetting(store: Store, tmp_path: Path) -> None:
    known_customer(store)
    content = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("receiver.db*")))
    assert SECRET_WORDS in content


def test_no_method_returns_a_word_of_a_forgotten_task(store: Store) -> None:
    known_customer(store)
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    results = (
        store.queries.history("a"),
        store.lists.tasks(),
        store.lists.callbacks(),
        store.idempotency.find("key", NOW + 2),
    )
    assert SECRET_WORDS.decode() not in repr(results)


def test_keys_statuses_and_files_of_a_forgotten_task_are_known(store: Store) -> None:
    known_customer(store)
    erasure = store.erasures.close_task("a", LATER)
    assert [file.url for file in erasure.files] == ["/data/0.png"]
    assert erasure.under_way == 0
    store.erasures.erase("a", LATER)
    assert store.erasures.close_task("a", LATER + 1).files == ()
    history = store.queries.history("a")
    assert [move.status for move in history.transitions] == ["created", "failed"]
    assert history.task.status is Status.FAILED
    assert (history.task.reference, history.task.reason) == (None, None)


def test_waiting_deliveries_of_a_forgotten_task_are_cancelled(store: Store) -> None:
    known_customer(store)
    store.erasures.close_task("a", LATER)
    assert claim(store) == []
    (cancelled,) = store.lists.deliveries(hook="slack")
    assert cancelled.state is State.DEAD
    with pytest.raises(NotFound, match="forgotten"):
        store.outbox.redeliver(cancelled.id, LATER)
    assert store.repair.redeliver_all(DeliverySelection(), LATER).changed == 0
    assert store.repair.catch_up(subscription("later"), 0, LATER).changed == 0


def test_a_running_attempt_is_waited_for_and_never_repeated(store: Store) -> None:
    succeed(store, "a")
    (running,) = claim(store)
    assert store.erasures.close_task("a", LATER).under_way == 1
    settle(store, running, State.PENDING)
    assert store.erasures.close_task("a", LATER).under_way == 0
    assert store.lists.deliveries()[0].state is State.DEAD


def test_a_forgotten_task_has_no_notice(store: Store) -> None:
    succeed(store, "a")
    (running,) = claim(store)
    store.erasures.close_task("a", LATER)
    with pytest.raises(PermanentFailure, match="forgotten"):
        current_notice(DeliveryWorker(store, {}), running)


@pytest.mark.parametrize("source", [Source.CALLBACK, Source.QUERY])
def test_a_late_callback_is_stored_without_its_body_and_calls_no_hook(
    store: Store, source: Source
) -> None:
    Ingest(store).accept(callback(body("processing"), "a"))
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    late = callback(body("succeed"), "a", source=source, headers={"X-Name": "Anna"})
    event = providers.get("kling").parse(replace(late, source=Source.CALLBACK))
    assert store.inbox.record(late, event, [subscription("mail")]) is Outcome.STALE
    assert set(bodies(store, "a")) == {b""}
    assert all(not stored.callback.headers for stored in store.lists.callbacks(task_id="a"))
    assert store.lists.deliveries() == []
    assert store.queries.task("a").status is Status.PROCESSING
    store.inbox.give_up("a", LATER, [subscription("mail")])
    assert store.lists.deliveries() == []


def test_a_late_body_that_cannot_be_parsed_is_not_stored_either(store: Store) -> None:
    Ingest(store).accept(callback(body("processing"), "a"))
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    store.inbox.quarantine(callback(SECRET_WORDS, "a"), f"{SECRET_WORDS.decode()} is not JSON")
    assert set(bodies(store, "a")) == {b""}
    assert {stored.problem for stored in store.lists.callbacks(task_id="a")} == {None}


def test_a_forgotten_task_is_not_queried(store: Store) -> None:
    store.inbox.create_task(Task("a", "kling", Status.CREATED, NOW, NOW, deadline_at=NOW))
    store.erasures.close_task("a", NOW)
    assert store.polling.claim_overdue(LATER, LATER + 1, 5) == []
    store.polling.query_at("a", NOW)  # as an attempt does when the result has expired
    assert store.polling.claim_overdue(LATER, LATER + 1, 5) == []


def test_a_replay_changes_nothing_once_forgetting_has_begun(store: Store) -> None:
    ingest = Ingest(store, [subscription("mail")])
    store.inbox.quarantine(callback(body(), "a"), "it could not be parsed")
    store.erasures.close_task("a", LATER)
    assert ingest.replay(store.lists.callbacks()[0].id) is Outcome.STALE
    assert store.lists.deliveries() == []
    assert store.queries.task("a").status is Status.CREATED


def test_a_repeated_request_for_a_forgotten_task_creates_no_second_one(store: Store) -> None:
    known_customer(store)
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    found = store.idempotency.find("key", NOW + 2)
    assert found is not None
    assert found.answer is not None
    assert found.answer.status == 410


def test_forgetting_an_unknown_task_raises_not_found(store: Store) -> None:
    for verb in (store.erasures.close_task, store.erasures.erase):
        with pytest.raises(NotFound, match="nobody"):
            verb("nobody", NOW)


@only_sqlite
def test_the_file_is_intact_afterwards(store: Store, tmp_path: Path) -> None:
    known_customer(store)
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    store.database.shrink(1000)
    connection = sqlite3.connect(tmp_path / "receiver.db")
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


# -- the quarantine, parsed again


def test_the_quarantine_is_listed_oldest_first_page_by_page(store: Store) -> None:
    for number in range(5):
        store.inbox.quarantine(
            callback(b'["x"]', f"task-{number}", received_at=NOW + number), "odd"
        )
    Ingest(store).accept(callback(body(), "task-9"))
    found = store.repair.quarantined(0)
    assert len(found) == 5
    assert found == sorted(found)
    assert store.repair.quarantined(NOW + 3) == found[3:]
    assert store.repair.quarantined(0, limit=2) == found[:2]
    assert store.repair.quarantined(0, after=found[1], limit=2) == found[2:4]


def test_a_dry_run_of_a_replay_returns_the_outcome_and_writes_nothing(store: Store) -> None:
    ingest = Ingest(store, [subscription("mail")])
    store.inbox.quarantine(callback(body()), "it could not be parsed")
    (quarantined,) = store.lists.callbacks()
    assert ingest.replay(quarantined.id, dry_run=True) is Outcome.RECORDED
    assert store.lists.callbacks() == [quarantined]
    assert store.queries.task("task-1").status is Status.CREATED
    assert store.lists.deliveries() == []
    assert ingest.replay(quarantined.id) is Outcome.RECORDED
    assert len(store.lists.deliveries()) == 1
