"""Deliveries as Procrastinate jobs: created in the same commit, and restored when lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

import psycopg
import pytest

from receiver.clock import now_ms
from receiver.deliveries import Attempt, Delivery, Notice, State
from receiver.delivery import procrastinate as dispatch
from receiver.delivery.worker_slots import Reservation, WorkerSlots
from receiver.endpoints import Breaker, EndpointHealth, Limits, Rate
from receiver.errors import StoreUnavailable
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.stores.postgres import PostgresStore
from receiver.stores.postgres.connecting import AsyncConnection
from receiver.stores.postgres.jobs import Jobs
from receiver.stores.sql.outbox import Settlement
from receiver.stores.sql.repair import DeliverySelection
from tests.support.dispatching import Start, delivered, dispatchers
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback, subscription

HOUR = 3_600_000  # ms


class Record(PostgresStore):
    """A store and the URL of its database, for the test's own connections."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.database.url = url


@pytest.fixture
def store(fresh: Callable[[], str]) -> Iterator[Record]:
    made = Record(fresh())
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "EVERY", "* * * * * *")
    monkeypatch.setattr(dispatch, "FETCH_EVERY", 0.05)


@pytest.fixture
def start(store: Record) -> Iterator[Start]:
    with dispatchers(store) as started:
        yield started


def ok(_: Notice) -> Done:
    return Done("ok")


def sql(store: Record, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(store.database.url, autocommit=True) as connection:
        found = connection.execute(statement.encode(), values)
        return found.fetchall() if found.description else []


def jobs(store: Record) -> dict[int, int]:
    """Return when the waiting jobs begin (0: immediately), by delivery."""
    found = sql(
        store,
        "select (args->>'delivery_id')::int, coalesce(extract(epoch from scheduled_at), 0) "
        "from procrastinate_jobs where task_name = 'attempt' and status = 'todo' order by 1",
    )
    return {delivery: round(at * 1000) for delivery, at in found}


def attempts_announced(store: Record) -> list[tuple[Any, ...]]:
    return sql(store, "select id from procrastinate_jobs where task_name = 'attempt'")


def lose_jobs(store: Record) -> None:
    sql(store, "delete from procrastinate_jobs")


def record(store: Record, task: str = "task-1", *hooks: str, **more: Any) -> None:
    heard = [subscription(hook, **more) for hook in hooks or ("mail",)]
    Ingest(store, heard).accept(callback(body(), task, received_at=now_ms()))


def claimed(store: Record, delivery_id: int = 1, lease: int = HOUR) -> Delivery:
    found = store.jobs.take(delivery_id, "test", now_ms(), now_ms() + lease)
    assert found is not None
    return found


def take(store: Record, slots: WorkerSlots, delivery_id: int) -> Delivery | None:
    with Reservation(slots) as reservation:
        found = store.jobs.take(delivery_id, "test", now_ms(), now_ms() + HOUR, reservation)
        if found is not None:
            reservation.keep([found.id])
    return found


def settle(store: Record, delivery: Delivery, state: State, due_at: int | None) -> None:
    now = now_ms()
    assert store.outbox.settle(
        delivery, Attempt(delivery.attempts, now, now, "failed", ""), state, due_at
    )


def test_a_delivery_and_its_job_are_one_commit(store: Record) -> None:
    record(store)
    assert list(jobs(store)) == [1]
    sql(store, "alter table procrastinate_jobs add constraint no_more check (id < 2)")
    with pytest.raises(StoreUnavailable, match="no_more"):
        record(store, "task-2")
    assert [task.id for task in store.lists.tasks()] == ["task-1"]  # nothing of it is on record


def test_a_retry_has_a_job_for_its_due_time(store: Record) -> None:
    record(store)
    lose_jobs(store)
    due_at = now_ms() + HOUR
    settle(store, claimed(store), State.PENDING, due_at)
    assert jobs(store) == {1: due_at}


def test_a_waiting_job_follows_its_delivery(store: Record) -> None:
    record(store)
    settle(store, claimed(store), State.PENDING, now_ms() + HOUR)
    sooner = now_ms() + 60_000
    sql(store, "update deliveries set due_at = %s", sooner)
    assert jobs(store) == {1: sooner}


def test_a_delivery_that_waited_for_another_gets_a_job_when_that_ends(store: Record) -> None:
    waiting = subscription("slack", after="mail")
    Ingest(store, [subscription("mail"), waiting]).accept(callback(received_at=now_ms()))
    assert list(jobs(store)) == [1]
    lose_jobs(store)
    settle(store, claimed(store), State.DELIVERED, None)
    assert list(jobs(store)) == [2]


def test_a_limited_wait_has_a_job_for_its_end(
    store: Record,
) -> None:
    waiting = subscription("slack", after="mail", wait_ms=HOUR)
    at = now_ms()
    Ingest(store, [subscription("mail"), waiting]).accept(callback(received_at=at))
    assert jobs(store) == {1: at, 2: at + HOUR}
    lose_jobs(store)
    store.jobs.announce_missing(at + HOUR)  # a lost job is restored when the wait is over
    assert 2 in jobs(store)
    settle(store, claimed(store), State.DELIVERED, None)
    assert jobs(store)[2] == store.queries.delivery(2).due_at
    assert jobs(store)[2] < at + HOUR


def test_every_kind_of_redelivery_gets_a_job(store: Record) -> None:
    record(store)
    settle(store, claimed(store), State.DEAD, None)
    lose_jobs(store)
    store.outbox.redeliver(1, now_ms())
    assert list(jobs(store)) == [1]
    settle(store, claimed(store), State.DEAD, None)
    lose_jobs(store)
    assert store.repair.redeliver_all(DeliverySelection(), now_ms()).changed == 1
    assert list(jobs(store)) == [1]
    lose_jobs(store)
    assert store.repair.catch_up(subscription("added"), 0, now_ms()).changed == 1
    assert list(jobs(store)) == [2]


def test_the_deliveries_of_a_recovered_endpoint_get_jobs(store: Record) -> None:
    record(store)
    store.endpoints.pause("mail", now_ms())
    lose_jobs(store)
    assert store.jobs.take(1, "test", now_ms(), now_ms() + HOUR) is None
    store.jobs.announce_missing(now_ms())
    assert jobs(store) == {}  # it is skipped
    assert store.endpoints.resume("mail")
    assert list(jobs(store)) == [1]


def test_one_probe_is_claimed_at_a_time(store: Record) -> None:
    for number in range(3):
        record(store, f"task-{number}")
    now = now_ms()
    breaker = Breaker(failures=1, seconds=0, pauses=(0.0,))
    first = claimed(store)
    attempt = Attempt(1, now, now, "failed", "")
    store.outbox.settle(
        first,
        attempt,
        State.PENDING,
        now + HOUR,
        change=lambda endpoint: breaker.after(endpoint, EndpointHealth.FAILS, now, "no"),
    )
    assert store.jobs.take(2, "test", now_ms(), now_ms() + HOUR) is not None  # the probe
    assert store.jobs.take(3, "test", now_ms(), now_ms() + HOUR) is None


def test_the_jobs_of_a_hook_without_a_slot_are_removed(store: Record) -> None:
    """Refusing each job would delay the jobs of other hooks."""
    slots = WorkerSlots(4)
    for number in range(5):
        record(store, f"task-{number}")
    record(store, "other", "slow")
    settle(store, claimed(store, 5), State.PENDING, now_ms() + HOUR)
    for delivery in (1, 2):
        assert take(store, slots, delivery) is not None
    assert take(store, slots, 3) is None
    # The jobs of claimed deliveries, of one that is not due, and of the other hook remain.
    assert list(jobs(store)) == [1, 2, 5, 6]
    assert take(store, slots, 6) is not None


def test_deliveries_whose_jobs_were_removed_are_attempted_when_their_hook_has_a_slot(
    store: Record, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most jobs are removed, because the hook has no slot for them; no sweep runs."""
    monkeypatch.setattr(dispatch, "EVERY", "0 0 1 1 * 0")  # on New Year's Day
    may_end = threading.Event()

    def send(_: Notice) -> Done:
        assert may_end.wait(PATIENCE)
        return Done("ok")

    for number in range(20):
        record(store, f"task-{number}")
    start(send, concurrency=4)
    try:
        wait_until(lambda: len(attempts_announced(store)) <= 2)  # of those that run
    finally:
        may_end.set()
    wait_until(lambda: delivered(store) == 20)


def test_the_jobs_of_a_hook_whose_limits_are_used_up_are_removed(store: Record) -> None:
    slots = WorkerSlots(4, limits=lambda: {"mail": Limits(Rate(1, "h"))})
    for number in range(4):
        record(store, f"task-{number}")
    record(store, "other", "slow")
    assert take(store, slots, 1) is not None
    assert take(store, slots, 2) is None
    # The only remaining job of this hook is that of the claimed delivery.
    assert list(jobs(store)) == [1, 5]
    assert slots.free == 3
    assert take(store, slots, 5) is not None


def test_the_sweep_announces_no_deliveries_of_hooks_with_limits(
    store: Record, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker claims their deliveries without jobs, so the jobs would be removed again."""
    skipped: list[Collection[str]] = []
    original = Jobs.announce_missing

    def announce(self: Jobs, now: int, without_jobs: Collection[str] = ()) -> int:
        skipped.append(without_jobs)
        return original(self, now, without_jobs)

    monkeypatch.setattr(Jobs, "announce_missing", announce)
    record(store, "task-1")
    record(store, "task-2")
    lose_jobs(store)
    start(ok, limits=lambda: {"mail": Limits(Rate(1, "h"))})
    wait_until(lambda: delivered(store) == 1)
    wait_until(lambda: len(skipped) > 1)
    assert all(list(hooks) == ["mail"] for hooks in skipped)
    assert attempts_announced(store) == []


def test_the_sweep_skips_hooks_without_a_slot(store: Record) -> None:
    record(store, "task-1", "mail", "slow")
    lose_jobs(store)
    assert store.jobs.announce_missing(now_ms(), ["mail"]) == 1
    assert list(jobs(store)) == [2]


def test_a_delivery_without_a_job_waits_while_its_hook_is_paused(
    store: Record, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "EVERY", "0 0 1 1 * 0")
    record(store, "task-1", "mail")
    record(store, "task-2", "slow")
    store.endpoints.pause("mail", now_ms())
    lose_jobs(store)
    start(ok)
    wait_until(lambda: delivered(store) == 1)
    assert [found.hook for found in store.lists.deliveries(state=State.PENDING)] == ["mail"]
    assert store.endpoints.resume("mail")
    lose_jobs(store)
    wait_until(lambda: delivered(store) == 2)


def test_two_abandoned_deliveries_do_not_begin_together(store: Record) -> None:
    slots = WorkerSlots(4)
    for number, hook in enumerate(("mail", "slow"), start=1):
        record(store, f"task-{number}", hook)
        delivery, now = claimed(store, number, lease=-1), now_ms()
        ended = Attempt(1, now, now, "abandoned", "")
        assert store.outbox.settle(delivery, ended, State.PENDING, now)
    lose_jobs(store)
    assert take(store, slots, 1) is not None
    assert take(store, slots, 2) is None
    ((waiting, begins_at),) = jobs(store).items()
    assert waiting == 2
    assert begins_at > now_ms()  # it is attempted later
    slots.end(1)
    assert take(store, slots, 2) is not None


def test_a_delivery_that_is_not_due_is_not_claimed(store: Record) -> None:
    record(store)
    settle(store, claimed(store), State.PENDING, now_ms() + HOUR)
    assert store.jobs.take(1, "test", now_ms(), now_ms() + HOUR) is None


def test_without_any_jobs_everything_is_delivered_nevertheless(store: Record, start: Start) -> None:
    for number in range(20):
        record(store, f"task-{number}", "mail", "slow")
    lose_jobs(store)
    start(ok)
    wait_until(lambda: delivered(store) == 40)


def test_the_deliveries_of_a_dead_worker_get_jobs(store: Record, start: Start) -> None:
    record(store)
    claimed(store, lease=1)
    lose_jobs(store)
    start(ok)
    wait_until(lambda: delivered(store) == 1)
    outcomes = [attempt.outcome for attempt in store.queries.history("task-1").attempts[1]]
    assert outcomes == ["abandoned", "delivered"]


def test_the_jobs_of_a_dead_worker_are_given_to_others(store: Record, start: Start) -> None:
    """This includes deliveries that already have another waiting job."""
    record(store)
    record(store, "task-2")
    sql(store, "insert into procrastinate_workers (last_heartbeat) values (now() - interval '1 h')")
    sql(store, "update procrastinate_jobs set status = 'doing', worker_id = 1")
    assert store.jobs.announce_missing(now_ms()) == 2
    sql(store, "delete from procrastinate_jobs where queueing_lock = 'delivery 2' and id > 2")
    start(ok)
    wait_until(lambda: delivered(store) == 2)
    wait_until(lambda: not attempts_announced(store))


def rescue(store: Record) -> None:
    async def work() -> None:
        app = store.jobs.queue()
        async with app.open_async():
            await dispatch.rescue(app)

    asyncio.run(work())


def test_of_two_jobs_of_one_delivery_the_stalled_one_is_deleted(store: Record) -> None:
    record(store)
    sql(store, "update procrastinate_jobs set status = 'doing'")
    assert store.jobs.announce_missing(now_ms()) == 1
    rescue(store)
    assert sql(store, "select status::text from procrastinate_jobs") == [("todo",)]


def test_a_job_is_rescued_a_limited_number_of_times(store: Record) -> None:
    record(store)
    sql(store, "update procrastinate_jobs set status = 'doing', attempts = %s", dispatch.RESCUES)
    rescue(store)
    assert sql(store, "select id from procrastinate_jobs") == []
    assert store.jobs.announce_missing(now_ms()) == 1  # no delivery is lost with it


def test_a_delivery_that_is_claimed_without_its_job_needs_none(store: Record) -> None:
    """It is claimed in place of one that ended; a job that a worker fetched already remains."""
    for number in range(4):
        record(store, f"task-{number}")
    first = claimed(store)
    sql(store, "update procrastinate_jobs set status = 'doing' where id in (1, 2)")
    now = now_ms()
    ended = Settlement(first, Attempt(1, now, now, "delivered", ""), State.DELIVERED, None)
    _, found = store.outbox.exchange([ended], "test", now, now + HOUR, 2)
    assert [delivery.id for delivery in found] == [2, 3]
    assert list(jobs(store)) == [4]
    assert len(attempts_announced(store)) == 3
    assert [one.id for one in store.outbox.claim("test", now, now + HOUR, 9)] == [4]
    assert jobs(store) == {}


def test_the_thread_of_a_job_continues_with_deliveries_without_jobs(
    store: Record, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sweep runs, and no other thread looks for them."""
    monkeypatch.setattr(dispatch, "EVERY", "0 0 1 1 * 0")  # on New Year's Day
    monkeypatch.setattr(dispatch.ProcrastinateDispatcher, "_begin_due", lambda *_: 0.01)
    for number in range(12):
        record(store, f"task-{number}", "mail", "slow")
    sql(store, "delete from procrastinate_jobs where queueing_lock <> 'delivery 1'")
    running = start(ok, concurrency=2)
    wait_until(lambda: delivered(store) == 24)
    running.stop()
    assert attempts_announced(store) == []


def test_finished_jobs_leave_no_rows(store: Record, start: Start) -> None:
    for number in range(10):
        record(store, f"task-{number}")
    running = start(ok)
    wait_until(lambda: delivered(store) == 10)
    running.stop()
    assert attempts_announced(store) == []
    ((events,),) = sql(store, "select count(*) from procrastinate_events")
    assert events < 10


def test_a_silent_server_is_given_up(store: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = AsyncConnection.connect

    async def connect(conninfo: str, **more: Any) -> AsyncConnection:
        seen.append(conninfo)
        return await original(conninfo, **more)

    async def work() -> None:
        async with store.jobs.queue().open_async():
            pass

    monkeypatch.setattr(AsyncConnection, "connect", connect)
    asyncio.run(work())
    assert seen
    assert all("connect_timeout=5" in conninfo for conninfo in seen)
