"""The locks that serialise writers: two stores do contradictory work at the same time.

Each lock of the stores has a test here that fails without it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event
from urllib.parse import quote, urlencode

import pytest

from receiver import stores
from receiver.clock import now_ms
from receiver.deliveries import GIVEN_UP, Attempt, Delivery, State, Subscription
from receiver.delivery.worker_slots import WorkerSlots
from receiver.endpoints import AlertKind, Endpoint, Limits, Rate
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.postgres import database as postgres_database
from receiver.stores.sql.idempotency import IdempotencyRecord
from receiver.stores.sql.locks import LockedSql
from receiver.stores.sql.outbox import Settlement
from receiver.stores.sql.queries import TaskHistory
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task
from tests.support.contention import Rivals, postgres_rivals, sqlite_rivals
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
SOON = NOW + 60_000
TASKS = 20
HOOKS = [subscription("mail")]
# Every module that takes a row lock, with the statement that takes it.
LOCKED = {
    "resolve_task.LOCK_TASK",
    "resolve_task._LOCK_BY_PROVIDER_ID",
    "polling.LOCK_TASK",
    "polling._OVERDUE",
    "endpoints._SELECT_AND_LOCK",
    "inbox.LOCK_TASK",
    "jobs._DUE",
    "hook_queues._OLDEST",
    "hook_queues._LOCK_ENDPOINT",
    "locks.LOCK_TASK",
    "recording._HOOKS_ON_RECORD",
    "repair._WAITING",
    "erasure.LOCK_TASK",
}


@pytest.fixture(params=["sqlite", "postgres"])
def rivals(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    fresh: Callable[[], str],
    migrated: Callable[[Path], SqliteStore],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Rivals[Store]]:
    """Two stores on one record."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            migrated(tmp_path / "receiver.db").close()
            yield stack.enter_context(sqlite_rivals(tmp_path / "receiver.db", monkeypatch))
        else:
            yield stack.enter_context(postgres_rivals(fresh(), monkeypatch))


@pytest.fixture
def on_postgres(
    fresh: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rivals[PostgresStore]]:
    """Two stores on one record, whose deliveries are dispatched by a job queue."""
    with postgres_rivals(fresh(), monkeypatch) as rivals:
        yield rivals


def create(store: Store, count: int = TASKS, deadline_at: int | None = None) -> list[str]:
    ids = [f"task-{number:02}" for number in range(count)]
    for task_id in ids:
        store.inbox.create_task(
            Task(task_id, "kling", Status.CREATED, NOW, NOW, deadline_at=deadline_at)
        )
    return ids


def of(task_id: str) -> str:
    """Return the provider's id of this task."""
    return f"p-{task_id}"


def succeeded(task_id: str, *, by: str = "token") -> Callback:
    message = callback(body("succeed", of(task_id)), task_id)
    return message if by == "token" else replace(message, task_id=None)


def failed(task_id: str, *, by: str = "token") -> Callback:
    message = callback(body("failed", of(task_id)), task_id)
    return message if by == "token" else replace(message, task_id=None)


def accepting(store: Store, message: Callback) -> Callable[[], Outcome]:
    return lambda: Ingest(store, HOOKS).accept(message)


def ends(history: TaskHistory) -> list[str]:
    statuses = [str(move.status) for move in history.transitions]
    return [status for status in statuses if status in {"succeeded", "failed"}]


def assert_ended_once(store: Store, task_id: str) -> None:
    history = store.queries.history(task_id)
    assert ends(history) == [str(history.task.status)]
    assert history.task.conflict
    assert [(one.hook, one.status) for one in history.deliveries] == [("mail", ends(history)[0])]
    outcomes = [str(one.outcome) for one in history.callbacks]
    assert sorted(outcomes[-2:]) == ["conflict", "recorded"]


def assert_both_are_there(rivals: Rivals[Store]) -> None:
    """On PostgreSQL, no lock of the first store keeps the second from their common table."""
    if isinstance(rivals.first, PostgresStore):
        assert rivals.stops.stopped() == 2


def claimed_deliveries(store: Store, count: int) -> list[Delivery]:
    for number in range(count):
        Ingest(store, HOOKS).accept(callback(body(), f"task-{number:02}"))
    found = store.outbox.claim("w", NOW, SOON, count)
    assert len(found) == count
    return list(found)


def settling(store: Store, delivery: Delivery, state: State = State.DEAD) -> Callable[[], bool]:
    """End the attempt with a failure that is counted."""
    attempt = Attempt(delivery.attempts, NOW, NOW, "failed", "no")

    def one_more(endpoint: Endpoint) -> tuple[Endpoint, AlertKind | None]:
        return replace(endpoint, failures=endpoint.failures + 1), None

    return lambda: store.outbox.settle(delivery, attempt, state, None, change=one_more)


# -- tasks


def test_a_task_has_one_final_status_whichever_store_records_it(rivals: Rivals[Store]) -> None:
    first, *others = create(rivals.first)
    outcomes = rivals.meet(
        "callbacks",
        accepting(rivals.first, succeeded(first)),
        accepting(rivals.second, failed(first)),
        more=[
            accepting(store, message(task_id))
            for task_id in others
            for store, message in ((rivals.first, succeeded), (rivals.second, failed))
        ],
    )
    assert outcomes[:2] == [Outcome.RECORDED, Outcome.CONFLICT]
    assert outcomes.count(Outcome.RECORDED) == outcomes.count(Outcome.CONFLICT) == TASKS
    for task_id in (first, *others):
        assert_ended_once(rivals.first, task_id)


@pytest.mark.parametrize(("by", "and_by"), [("token", "signature"), ("signature", "token")])
def test_a_task_has_one_final_status_however_it_is_found(
    rivals: Rivals[Store], by: str, and_by: str
) -> None:
    """One callback contains our id; the other one has the provider's id and a signature."""
    first, *others = create(rivals.first)
    for task_id in (first, *others):
        Ingest(rivals.first).accept(callback(body("submitted", of(task_id)), task_id))
    outcomes = rivals.meet(
        "callbacks",
        accepting(rivals.first, succeeded(first, by=by)),
        accepting(rivals.second, failed(first, by=and_by)),
        more=[
            accepting(store, message)
            for task_id in others
            for store, message in (
                (rivals.first, succeeded(task_id, by=by)),
                (rivals.second, failed(task_id, by=and_by)),
            )
        ],
    )
    assert outcomes[:2] == [Outcome.RECORDED, Outcome.CONFLICT]
    assert outcomes.count(Outcome.RECORDED) == outcomes.count(Outcome.CONFLICT) == TASKS
    for task_id in (first, *others):
        assert_ended_once(rivals.first, task_id)


def test_a_task_with_a_final_status_is_not_given_up(rivals: Rivals[Store]) -> None:
    (task_id,) = create(rivals.first, 1)
    rivals.meet(
        "transitions",
        accepting(rivals.first, succeeded(task_id)),
        lambda: rivals.second.inbox.give_up(task_id, NOW, HOOKS),
    )
    history = rivals.first.queries.history(task_id)
    assert [move.status for move in history.transitions] == ["created", "succeeded"]
    assert history.task.given_up_at is None


def test_an_unknown_task_is_adopted_by_one_store(rivals: Rivals[Store]) -> None:
    names = [f"unknown-{number}" for number in range(TASKS)]

    def adopting(store: Store, name: str) -> Callable[[], Outcome]:
        number = 1 if store is rivals.first else 2
        message = callback(body("succeed", name, n=number))
        return accepting(store, replace(message, task_id=None))

    outcomes = rivals.meet(
        "tasks",
        adopting(rivals.first, names[0]),
        adopting(rivals.second, names[0]),
        more=[
            adopting(store, name) for name in names[1:] for store in (rivals.first, rivals.second)
        ],
    )
    assert outcomes.count(Outcome.RECORDED) == outcomes.count(Outcome.DUPLICATE) == TASKS
    found = rivals.first.lists.tasks(limit=2 * TASKS)
    assert sorted(str(task.provider_task_id) for task in found) == sorted(names)
    assert len(rivals.first.lists.deliveries(limit=2 * TASKS)) == TASKS


def test_a_task_id_is_created_by_one_store(rivals: Rivals[Store]) -> None:
    def creating(store: Store) -> Callable[[], bool]:
        def create_it() -> bool:
            try:
                store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW))
            except ValueError:
                return False
            return True

        return create_it

    created = rivals.meet("tasks", creating(rivals.first), creating(rivals.second))
    assert sorted(created) == [False, True]
    assert len(rivals.first.queries.history("task-1").transitions) == 1


def test_an_overdue_task_is_claimed_by_one_poller(rivals: Rivals[Store]) -> None:
    """The second poller claims other tasks, and does not wait for the first."""
    ids = create(rivals.first, 2 * TASKS, deadline_at=NOW)

    def taking(store: Store) -> Callable[[], list[str]]:
        return lambda: [task.id for task in store.polling.claim_overdue(NOW, SOON, TASKS)]

    one, two = rivals.meet(
        "tasks",
        taking(rivals.first),
        taking(rivals.second),
        when="after",
        while_waiting=lambda: assert_both_are_there(rivals),
    )
    assert (len(one), len(two)) == (TASKS, TASKS)
    assert sorted(one + two) == ids
    assert {rivals.first.queries.task(task_id).asked for task_id in ids} == {1}


def test_a_poller_claims_no_more_than_its_limit_whatever_the_query_plan(
    fresh: Callable[[], str],
) -> None:
    """Even a plan that runs the subquery for each task must not claim more tasks at each run."""
    settings = ("hashjoin", "mergejoin", "hashagg", "sort", "material")
    options = " ".join(f"-c enable_{name}=off" for name in settings)
    store = PostgresStore(f"{fresh()}?{urlencode({'options': options}, quote_via=quote)}")
    try:
        create(store, 2 * TASKS, deadline_at=NOW)
        assert len(store.polling.claim_overdue(NOW, SOON, TASKS)) == TASKS
    finally:
        store.close()


# -- deliveries and endpoints


def test_a_delivery_is_claimed_by_one_worker(rivals: Rivals[Store]) -> None:
    """The second worker claims other deliveries, and does not wait for the first."""
    for number in range(2 * TASKS):
        Ingest(rivals.first, HOOKS).accept(callback(body(), f"task-{number:02}"))

    def claiming(store: Store, worker: str) -> Callable[[], list[int]]:
        return lambda: [found.id for found in store.outbox.claim(worker, NOW, SOON, TASKS)]

    one, two = rivals.meet(
        "deliveries",
        claiming(rivals.first, "one"),
        claiming(rivals.second, "two"),
        while_waiting=lambda: assert_both_are_there(rivals),
    )
    assert (len(one), len(two)) == (TASKS, TASKS)
    assert not set(one) & set(two)
    assert {found.attempts for found in rivals.first.lists.deliveries(limit=99)} == {1}


def test_a_delivery_with_two_jobs_is_claimed_by_one_worker(
    on_postgres: Rivals[PostgresStore],
) -> None:
    """The second worker does not wait for the first."""
    Ingest(on_postgres.first, HOOKS).accept(callback(body(), "task-1", received_at=now_ms()))
    (delivery,) = on_postgres.first.lists.deliveries()

    def taking(store: PostgresStore, worker: str) -> Callable[[], Delivery | None]:
        return lambda: store.jobs.take(delivery.id, worker, now_ms(), now_ms() + 60_000)

    waiting: list[int] = []
    one, two = on_postgres.meet(
        "deliveries",
        taking(on_postgres.first, "one"),
        taking(on_postgres.second, "two"),
        while_waiting=lambda: waiting.append(on_postgres.stops.waiting()),
    )
    assert one is not None
    assert two is None
    assert waiting == [1]
    assert on_postgres.first.queries.delivery(delivery.id).attempts == 1


@pytest.mark.parametrize("limits", [Limits(Rate(10, "s")), Limits(concurrency=1)], ids=str)
def test_two_workers_use_the_limits_of_a_hook_once(rivals: Rivals[Store], limits: Limits) -> None:
    for number in range(4):
        Ingest(rivals.first, HOOKS).accept(callback(body(), f"task-{number}"))

    def claiming(store: Store) -> Callable[[], int]:
        slots = WorkerSlots(4, limits=lambda: {"mail": limits})
        return lambda: len(store.outbox.exchange((), "w", NOW, SOON, 4, slots)[1])

    claimed = rivals.meet("deliveries", claiming(rivals.first), claiming(rivals.second))
    assert claimed == [1, 0]


def test_the_limits_of_one_hook_do_not_delay_another(rivals: Rivals[Store]) -> None:
    """Each worker claims for its own hook, and each hook has a limit."""
    for number in range(4):
        hooks = [subscription(hook) for hook in ("mail", "shop")]
        Ingest(rivals.first, hooks).accept(callback(body(), f"task-{number}"))
    limits = {"mail": Limits(concurrency=1), "shop": Limits(concurrency=1)}

    def claiming(store: Store, hook: str) -> Callable[[], list[str]]:
        slots = WorkerSlots(4, is_known=lambda known: known == hook, limits=lambda: limits)
        return lambda: [one.hook for one in store.outbox.exchange((), "w", NOW, SOON, 4, slots)[1]]

    claimed = rivals.meet(
        "deliveries", claiming(rivals.first, "mail"), claiming(rivals.second, "shop")
    )
    assert claimed == [["mail"], ["shop"]]


@pytest.mark.parametrize("first_by", ["job", "slot"])
@pytest.mark.parametrize("second_by", ["job", "slot"])
@pytest.mark.parametrize("limits", [Limits(Rate(10, "s")), Limits(concurrency=1)], ids=str)
def test_jobs_and_slots_use_the_limits_of_a_hook_together(
    on_postgres: Rivals[PostgresStore], first_by: str, second_by: str, limits: Limits
) -> None:
    for number in range(4):
        message = callback(body(), f"task-{number}", received_at=now_ms())
        Ingest(on_postgres.first, HOOKS).accept(message)
    ids = [found.id for found in on_postgres.first.lists.deliveries()]
    slots = WorkerSlots(4, limits=lambda: {"mail": limits})

    def taking(store: PostgresStore, delivery_id: int, by: str) -> Callable[[], int]:
        def take() -> int:
            now = now_ms()
            if by == "job":
                found = store.jobs.take(delivery_id, "w", now, now + 60_000, slots)
                return int(found is not None)
            return len(store.outbox.exchange((), "w", now, now + 60_000, 4, slots)[1])

        return take

    claimed = on_postgres.meet(
        "deliveries",
        taking(on_postgres.first, ids[0], first_by),
        taking(on_postgres.second, ids[2], second_by),
    )
    assert claimed == [1, 0]


@pytest.mark.parametrize("first_by", ["job", "slot"])
@pytest.mark.parametrize("second_by", ["job", "slot"])
def test_a_half_open_circuit_is_probed_by_one_worker(
    on_postgres: Rivals[PostgresStore], first_by: str, second_by: str
) -> None:
    """Workers claim by a job, or for a slot that is free."""
    store = on_postgres.first
    for number in range(3):
        message = callback(body(), f"task-{number}", received_at=now_ms())
        Ingest(store, HOOKS).accept(message)
    ids = [found.id for found in store.lists.deliveries()]

    def taking(
        store: PostgresStore, delivery_id: int, by: str = "job"
    ) -> Callable[[], Delivery | None]:
        def take() -> Delivery | None:
            now = now_ms()
            if by == "job":
                return store.jobs.take(delivery_id, "w", now, now + 60_000)
            return next(iter(store.outbox.exchange((), "w", now, now + 60_000, 9)[1]), None)

        return take

    failing = taking(store, ids[0])()
    assert failing is not None
    half_open = Endpoint("mail", 1, now_ms(), openings=1, retry_at=now_ms())
    attempt = Attempt(1, now_ms(), now_ms(), "failed", "no")
    store.outbox.settle(failing, attempt, State.DEAD, None, change=lambda _: (half_open, None))

    one, two = on_postgres.meet(
        "deliveries",
        taking(on_postgres.first, ids[1], first_by),
        taking(on_postgres.second, ids[2], second_by),
    )
    assert one is not None
    assert two is None


def test_leases_are_renewed_while_attempts_are_settled_together(
    on_postgres: Rivals[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lock the same rows in the same order, so neither is rolled back by a deadlock."""
    monkeypatch.setattr(postgres_database, "TRIES", 1)
    first, second = claimed_deliveries(on_postgres.first, 2)
    settlements = [
        Settlement(one, Attempt(1, NOW, NOW, "delivered", "ok"), State.DELIVERED, None)
        for one in (second, first)  # the order in which they ended
    ]

    def settle() -> list[bool]:
        return on_postgres.first.outbox.exchange(settlements, "w", NOW, SOON, 0)[0]

    def renew() -> list[bool]:
        on_postgres.second.outbox.renew([first, second], SOON)
        return []

    assert on_postgres.meet("deliveries", settle, renew, when="after") == [[True, True], []]


@pytest.mark.parametrize("failed_before", [0, 1])
def test_failures_of_an_endpoint_are_all_counted(rivals: Rivals[Store], failed_before: int) -> None:
    """This includes the first ones, which find no row to lock."""
    deliveries = claimed_deliveries(rivals.first, TASKS)
    for known in deliveries[:failed_before]:
        assert settling(rivals.first, known)()
    first, second, *others = deliveries[failed_before:]
    rivals.meet(
        "endpoints",
        settling(rivals.first, first),
        settling(rivals.second, second),
        more=[
            settling(store, delivery)
            for delivery, store in zip(others, [rivals.first, rivals.second] * TASKS, strict=False)
        ],
    )
    assert rivals.first.endpoints.of("mail").failures == TASKS


def test_an_attempt_is_settled_once(rivals: Rivals[Store]) -> None:
    (delivery,) = claimed_deliveries(rivals.first, 1)
    settled = rivals.meet(
        "deliveries", settling(rivals.first, delivery), settling(rivals.second, delivery)
    )
    assert sorted(settled) == [False, True]
    assert len(rivals.first.queries.history("task-00").attempts[delivery.id]) == 1


def test_an_alert_is_claimed_by_one_worker(rivals: Rivals[Store]) -> None:
    (delivery,) = claimed_deliveries(rivals.first, 1)
    attempt = Attempt(1, NOW, NOW, "failed", "no")
    paused = Endpoint("mail", 5, NOW, openings=1, retry_at=SOON)
    rivals.first.outbox.settle(
        delivery, attempt, State.DEAD, None, change=lambda _: (paused, AlertKind.PAUSED)
    )
    one, two = rivals.meet(
        "alerts",
        lambda: rivals.first.endpoints.take_alerts(NOW, SOON),
        lambda: rivals.second.endpoints.take_alerts(NOW, SOON),
        when="after",
    )
    assert sorted([len(one), len(two)]) == [0, 1]


# -- requests that may be repeated


def test_an_idempotency_key_is_claimed_by_one_request(rivals: Rivals[Store]) -> None:
    def claiming(store: Store, task_id: str) -> Callable[[], IdempotencyRecord | None]:
        return lambda: store.idempotency.claim("key", b"digest", task_id, NOW, SOON)

    holders = rivals.meet(
        "idempotency_keys", claiming(rivals.first, "one"), claiming(rivals.second, "two")
    )
    assert [holder is None for holder in holders].count(True) == 1
    (winner,) = [holder for holder in holders if holder is not None]
    assert rivals.first.idempotency.find("key", NOW) == winner


# -- forgetting


def test_inputs_are_not_stored_while_their_task_is_forgotten(rivals: Rivals[Store]) -> None:
    (task_id,) = create(rivals.first, 1)
    rivals.meet(
        "forgotten",
        lambda: _nothing(rivals.first.erasures.close_task(task_id, NOW)),
        lambda: rivals.second.inbox.keep_inputs(task_id, {"human": b"a person"}),
        when="after",
    )
    assert rivals.first.queries.inputs(task_id) == {}


def test_inputs_that_are_stored_during_forgetting_are_erased(rivals: Rivals[Store]) -> None:
    (task_id,) = create(rivals.first, 1)

    def forget() -> None:
        rivals.second.erasures.close_task(task_id, NOW)
        rivals.second.erasures.erase(task_id, NOW)

    rivals.meet(
        "inputs", lambda: rivals.first.inbox.keep_inputs(task_id, {"human": b"a person"}), forget
    )
    assert rivals.first.queries.inputs(task_id) == {}


@pytest.mark.parametrize("verb", ["close_task", "erase"])
def test_forgetting_locks_its_task_before_it_writes(rivals: Rivals[Store], verb: str) -> None:
    """Recording does the same, so the two cannot deadlock."""
    (task_id,) = create(rivals.first, 1)
    message = succeeded(task_id)
    Ingest(rivals.first, HOOKS).accept(message)
    written: list[set[str]] = []
    rivals.meet(
        "callbacks",
        lambda: _nothing(Ingest(rivals.first, HOOKS).accept(message)),
        lambda: _nothing(getattr(rivals.second.erasures, verb)(task_id, NOW)),
        while_waiting=lambda: written.append(rivals.stops.written()),
    )
    assert written == [set()]


@pytest.mark.parametrize("by", ["token", "signature"])
def test_a_callback_that_waits_for_forgetting_is_stored_without_its_body(
    rivals: Rivals[Store], by: str
) -> None:
    (task_id,) = create(rivals.first, 1)
    Ingest(rivals.first).accept(callback(body("submitted", of(task_id)), task_id))
    rivals.meet(
        "forgotten",
        lambda: _nothing(rivals.first.erasures.close_task(task_id, NOW)),
        lambda: _nothing(Ingest(rivals.second, HOOKS).accept(succeeded(task_id, by=by))),
        when="after",
    )
    history = rivals.first.queries.history(task_id)
    assert [one.callback.body for one in history.callbacks][1:] == [b""]
    assert history.task.status is Status.SUBMITTED
    assert history.deliveries == ()


def test_a_task_is_not_given_up_while_it_is_forgotten(rivals: Rivals[Store]) -> None:
    hears_it = Subscription("mail", frozenset({GIVEN_UP}))
    (task_id,) = create(rivals.first, 1)
    rivals.meet(
        "forgotten",
        lambda: _nothing(rivals.first.erasures.close_task(task_id, NOW)),
        lambda: rivals.second.inbox.give_up(task_id, NOW, [hears_it]),
        when="after",
    )
    history = rivals.first.queries.history(task_id)
    assert [move.status for move in history.transitions] == ["created"]
    assert history.deliveries == ()


def test_a_forgotten_task_is_not_claimed_for_a_query(rivals: Rivals[Store]) -> None:
    (task_id,) = create(rivals.first, 1)
    rivals.meet(
        "forgotten",
        lambda: _nothing(rivals.first.erasures.close_task(task_id, NOW)),
        lambda: rivals.second.polling.query_at(task_id, NOW),
        when="after",
    )
    assert rivals.first.polling.claim_overdue(NOW, SOON, 1) == []


def test_a_claimed_delivery_is_not_dropped(rivals: Rivals[Store]) -> None:
    create(rivals.first, 1)
    Ingest(rivals.first, HOOKS).accept(callback(body(), "task-00"))

    def claimed() -> int:
        return len(rivals.first.outbox.claim("w", NOW, SOON, 1))

    found = rivals.meet(
        "deliveries", claimed, lambda: rivals.second.repair.drop("mail", NOW), when="after"
    )
    (delivery,) = rivals.first.queries.history("task-00").deliveries
    assert (found, delivery.state) == ([1, 0], State.CLAIMED)


def test_a_dropped_delivery_is_not_claimed(rivals: Rivals[Store]) -> None:
    create(rivals.first, 1)
    Ingest(rivals.first, HOOKS).accept(callback(body(), "task-00"))

    def claimed() -> int:
        return len(rivals.second.outbox.claim("w", NOW, SOON, 1))

    found = rivals.meet(
        "deliveries", lambda: rivals.first.repair.drop("mail", NOW), claimed, when="after"
    )
    (delivery,) = rivals.first.queries.history("task-00").deliveries
    assert (found, delivery.state) == ([1, 0], State.DEAD)


def _nothing(_: object) -> None:
    """Discard the result of a store method."""


# -- the list above is complete


class SlowSubscription(Subscription):
    """Waits between the read of the deliveries on record and the write of its own."""

    has_read, may_go_on = Event(), Event()

    def awaited(self, hooks: Collection[str]) -> str | None:
        self.has_read.set()
        assert self.may_go_on.wait(PATIENCE)
        return super().awaited(hooks)


def test_a_delivery_that_ends_releases_one_that_is_created_meanwhile(
    on_postgres: Rivals[PostgresStore],
) -> None:
    """`redeliver --since` creates a delivery that waits for another one, which ends just then."""
    first, second = on_postgres.first, on_postgres.second
    Ingest(first, HOOKS).accept(callback(body(), "task-1"))
    (mail,) = first.outbox.claim("w", SOON, 2 * SOON, 1)
    shop = SlowSubscription("shop", frozenset({"succeeded"}), after="mail")
    ended = Attempt(1, SOON, SOON, "delivered", "ok")
    with ThreadPoolExecutor(2) as pool:
        creating = pool.submit(first.repair.catch_up, shop, 0, SOON)
        try:
            assert shop.has_read.wait(PATIENCE)
            ending = pool.submit(second.outbox.settle, mail, ended, State.DELIVERED, None)
            wait_until(lambda: ending.done() or on_postgres.stops.waiting())
        finally:
            shop.may_go_on.set()
        assert creating.result(PATIENCE).changed == 1
        assert ending.result(PATIENCE)
    (created,) = [one for one in first.lists.deliveries() if one.hook == "shop"]
    assert created.due_at == SOON


def test_each_lock_is_listed_here() -> None:
    """A new lock needs a test in this file that fails without it."""
    found = set()
    for module in pkgutil.walk_packages(stores.__path__, f"{stores.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, LockedSql):
                found.add(f"{module.name.rpartition('.')[2]}.{name}")
    assert found == LOCKED
