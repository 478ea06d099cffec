"""In every store, rows are due in elapsed time after a clock was set, and only once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from receiver.deliveries import Attempt, Delivery, State
from receiver.endpoints import AlertKind, Breaker, Circuit, EndpointHealth
from receiver.ingest import Ingest
from receiver.maintenance.prune import prune
from receiver.observability.metrics import MetricBuffer
from receiver.stores.base import Store
from receiver.stores.sql.sessions import Allowance, Usage
from receiver.stores.sql.transfer import TABLES, Transfer
from receiver.tasks import Status, Task
from tests.support.machine import Machine, correction
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
SECOND, MINUTE, HOUR, DAY, YEAR = 1_000, 60_000, 3_600_000, 86_400_000, 365 * 86_400_000
BACK = [-2 * SECOND, -10 * SECOND, -MINUTE, -HOUR, -25 * HOUR, -40 * DAY, -YEAR, -50 * YEAR]
FORWARD = [3 * SECOND, 20 * SECOND, 2 * MINUTE, HOUR, 25 * HOUR, 40 * DAY, YEAR, 50 * YEAR]
HISTORY = ("callbacks", "transitions", "attempts", "files")
LEASE = 10 * SECOND
ALLOWANCE = Allowance("password", burst=10, per_second=0.1)
LATE = NOW + 1_000 * YEAR


@pytest.fixture
def machine(store: Store, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine of the processes; the PostgreSQL server runs on it, or has the same clock."""
    machine = Machine(NOW)
    if store.database.server_clock() is not None:
        monkeypatch.setattr(type(store.database), "server_clock", lambda _: machine.shown)
    return machine


def accept(store: Store, task_id: str = "task-1", *hooks: str, at: int = NOW) -> None:
    ingest = Ingest(store, [subscription(hook) for hook in hooks or ("mail",)])
    ingest.accept(callback(body(), task_id, received_at=at))


def claim(store: Store, now: int, limit: int = 9) -> list[Delivery]:
    return list(store.outbox.claim("host:1:worker", now, now + LEASE, limit))


def fail(store: Store, delivery: Delivery, now: int, delay: int) -> None:
    attempt = Attempt(delivery.attempts, now, now, "failed", "no answer")
    assert store.outbox.settle(delivery, attempt, State.PENDING, now + delay)


def refuse(store: Store, now: int) -> None:
    """Record ten wrong passwords of one sender, which expire within 100 seconds."""
    store.sessions.add_refused_attempts(ALLOWANCE, [Usage(1, "sender", 10.0, now)], now)


def retry(store: Store, now: int, delay: int = 30 * SECOND) -> None:
    """Create a failed delivery that is due after `delay`."""
    accept(store, at=now)
    (delivery,) = claim(store, now)
    fail(store, delivery, now, delay)


# -- set back


@pytest.mark.parametrize("by", BACK)
def test_a_retry_is_due_in_elapsed_time_after_the_clock_was_set_back(
    store: Store, machine: Machine, by: int
) -> None:
    watch = machine.watch(store)
    watch.look()
    retry(store, machine.shown)
    machine.set_clock(by)
    step = correction(watch)
    assert step is not None
    assert (step.by_ms, step.at) == (by, machine.shown)
    machine.wait(29 * SECOND)
    assert claim(store, machine.shown) == []
    machine.wait(SECOND)
    assert [delivery.id for delivery in claim(store, machine.shown)] == [1]


@pytest.mark.parametrize("by", [*BACK, *FORWARD])
def test_the_lease_of_a_dead_worker_expires_after_the_clock_was_set(
    store: Store, machine: Machine, by: int
) -> None:
    watch = machine.watch(store)
    watch.look()
    accept(store)
    claim(store, machine.shown)
    machine.set_clock(by)
    correction(watch)
    assert store.outbox.expired(machine.shown) == []
    machine.wait(LEASE)
    assert [delivery.id for delivery in store.outbox.expired(machine.shown)] == [1]


@pytest.mark.parametrize("by", [*BACK, *FORWARD])
def test_the_lease_of_a_live_worker_does_not_expire(
    store: Store, machine: Machine, by: int
) -> None:
    watch = machine.watch(store)
    watch.look()
    accept(store)
    (delivery,) = claim(store, machine.shown)
    machine.wait(LEASE // 2)
    machine.set_clock(by)
    correction(watch)
    machine.wait(LEASE // 2)
    assert store.outbox.expired(machine.shown) == []
    attempt = Attempt(1, machine.shown, machine.shown, "delivered", "ok")
    assert store.outbox.settle(delivery, attempt, State.DELIVERED, None)


@pytest.mark.parametrize("by", BACK)
def test_everything_else_continues_in_elapsed_time_after_the_clock_was_set_back(
    store: Store, machine: Machine, by: int
) -> None:
    watch = machine.watch(store)
    watch.look()
    schedule_everything(store, machine.shown)
    machine.set_clock(by)
    correction(watch)
    assert due(store, machine.shown + MINUTE - 1) == set()
    assert due(store, machine.shown + MINUTE) == EVERYTHING


def test_a_dead_worker_does_not_look_alive_after_the_clock_was_set_back(
    store: Store, machine: Machine
) -> None:
    watch = machine.watch(store)
    watch.look()
    store.activity.heartbeat("host:1", "worker", machine.shown)
    machine.wait(20 * SECOND)
    machine.set_clock(-HOUR)
    correction(watch)
    assert store.activity.last_seen("worker") == machine.shown - 20 * SECOND


def test_a_mismatch_is_queried_within_a_minute_although_one_was_recorded_in_the_future(
    store: Store,
) -> None:
    ingest, earlier = Ingest(store, []), NOW - HOUR
    for number, at in enumerate((NOW, NOW, earlier)):
        store.polling.claim_overdue(NOW, NOW + DAY, 9)  # the poller queries it
        raw = body("processing", task_id=f"at-kling-{number}")
        ingest.accept(callback(raw, received_at=at))
    assert store.queries.task("task-1").deadline_at == earlier + MINUTE


# -- set forward


@pytest.mark.parametrize("by", FORWARD)
def test_nothing_is_due_early_because_the_clock_was_set_forward(
    store: Store, machine: Machine, by: int
) -> None:
    watch = machine.watch(store)
    watch.look()
    schedule_everything(store, machine.shown)
    machine.set_clock(by)
    correction(watch)
    assert due(store, machine.shown) == set()
    assert due(store, machine.shown + MINUTE) == EVERYTHING


def test_rows_scheduled_between_a_step_forward_and_its_correction_are_not_moved(
    store: Store, machine: Machine
) -> None:
    watch = machine.watch(store)
    watch.look()
    retry(store, machine.shown)
    machine.set_clock(HOUR)
    accept(store, "task-2", at=machine.shown)
    machine.wait(5 * SECOND)
    correction(watch)
    assert [delivery.task_id for delivery in claim(store, machine.shown)] == ["task-2"]


def test_a_long_delay_is_not_longer_after_a_step_forward(store: Store, machine: Machine) -> None:
    watch = machine.watch(store)
    watch.look()
    retry(store, machine.shown, delay=3 * HOUR)
    machine.set_clock(HOUR)
    correction(watch)
    assert claim(store, machine.shown) == []
    machine.wait(3 * HOUR)
    assert len(claim(store, machine.shown)) == 1


# -- each step is corrected once


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_several_processes_correct_a_step_once(store: Store, machine: Machine, by: int) -> None:
    watches = [machine.watch(store) for _ in range(5)]
    for watch in watches:
        watch.look()
    retry(store, machine.shown)
    machine.set_clock(by)
    steps = [watch.look() for _ in range(3) for watch in watches]
    assert len([step for step in steps if step is not None]) == 1
    assert claim(store, machine.shown + 29 * SECOND) == []
    assert len(claim(store, machine.shown + 30 * SECOND)) == 1


def test_processes_that_check_at_the_same_time_correct_a_step_once(
    store: Store, machine: Machine
) -> None:
    watches = [machine.watch(store) for _ in range(8)]
    for watch in watches:
        watch.look()
    retry(store, machine.shown)
    machine.set_clock(-HOUR)
    with ThreadPoolExecutor(len(watches)) as pool:
        steps = list(pool.map(correction, watches))
    assert len([step for step in steps if step is not None]) == 1
    assert len(store.clocks.clock_steps(0)) == 1
    assert claim(store, machine.shown + 29 * SECOND) == []


@pytest.mark.parametrize("by", [-HOUR, HOUR, 3 * SECOND])
def test_several_machines_correct_a_step_of_their_server_once(
    store: Store, machine: Machine, by: int
) -> None:
    others = [Machine(NOW, f"boot-{number}", up=number * DAY) for number in range(2, 5)]
    watches = [one.watch(store) for one in (machine, *others)]
    for watch in watches:
        watch.look()
    retry(store, machine.shown)
    for one in (machine, *others):
        one.set_clock(by)
    steps = [watch.look() for _ in range(3) for watch in watches]
    assert len([step for step in steps if step is not None]) == 1
    assert len(claim(store, machine.shown + 30 * SECOND)) == 1


def test_consecutive_steps_are_all_corrected(store: Store, machine: Machine) -> None:
    watch, lazy = machine.watch(store), machine.watch(store)
    watch.look()
    lazy.look()
    retry(store, machine.shown, delay=HOUR)
    for by in (-HOUR, 2 * HOUR, -10 * MINUTE, -3 * DAY, 5 * SECOND):
        machine.set_clock(by)
        assert correction(watch) is not None
    assert correction(lazy) is None  # it did not check meanwhile
    assert len(claim(store, machine.shown + HOUR)) == 1


def test_a_step_while_every_process_was_down_is_corrected_at_the_next_start(
    store: Store, machine: Machine
) -> None:
    machine.watch(store).look()
    retry(store, machine.shown)
    machine.wait(10 * SECOND)
    machine.set_clock(-HOUR)
    step = machine.watch(store).look()  # at its first check
    assert step is not None
    assert step.by_ms == -HOUR
    assert claim(store, machine.shown + 19 * SECOND) == []
    assert len(claim(store, machine.shown + 20 * SECOND)) == 1


def test_a_clock_that_was_set_back_before_a_reboot_is_noticed_by_the_last_heartbeat(
    store: Store, machine: Machine
) -> None:
    machine.watch(store).look()
    store.activity.heartbeat("host:1", "worker", machine.shown)
    retry(store, machine.shown)
    machine.boot = "boot-2"
    machine.set_clock(-HOUR)
    step = machine.watch(store).look()
    assert step is not None
    assert step.by_ms == -HOUR
    assert len(claim(store, machine.shown + 30 * SECOND)) == 1
    assert machine.watch(store).look() is None


def test_a_reboot_is_not_a_step(store: Store, machine: Machine) -> None:
    machine.watch(store).look()
    store.activity.heartbeat("host:1", "worker", machine.shown)
    machine.wait(HOUR)
    machine.boot, machine.up = "boot-2", 0
    assert machine.watch(store).look() is None


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # a server is another machine
@pytest.mark.parametrize("behind", [HOUR, 50 * YEAR])
def test_a_machine_that_gets_the_time_after_its_boot_delays_nothing(
    store: Store, machine: Machine, behind: int
) -> None:
    machine.watch(store).look()
    store.activity.heartbeat("host:1", "worker", machine.shown)
    retry(store, machine.shown, delay=2 * HOUR)
    machine.wait(HOUR)  # switched off
    machine.boot, machine.up = "boot-2", 20 * SECOND
    machine.set_clock(-behind)
    watch = machine.watch(store)
    watch.look()
    machine.wait(MINUTE)
    machine.set_clock(behind)
    watch.look()
    assert claim(store, machine.shown) == []
    assert len(claim(store, NOW + 2 * HOUR)) == 1


# -- changes that are not steps


def test_time_in_suspend_is_elapsed_time(store: Store, machine: Machine) -> None:
    watch = machine.watch(store)
    watch.look()
    retry(store, machine.shown, delay=8 * HOUR)
    machine.wait(8 * HOUR)
    assert correction(watch) is None
    assert len(claim(store, machine.shown)) == 1


@pytest.mark.parametrize("by", [-1_900, -600, -1, 1, 600, 1_900])
def test_small_changes_are_not_steps_however_many(store: Store, machine: Machine, by: int) -> None:
    watch = machine.watch(store)
    for _ in range(20):
        machine.wait(2 * SECOND)
        machine.set_clock(by)
        assert watch.look() is None
    assert store.clocks.clock_steps(0) == []


@pytest.mark.parametrize("paused_for", [10 * SECOND, HOUR, 40 * DAY])
def test_a_paused_machine_does_not_move_rows_that_it_shares_with_others(
    store: Store, machine: Machine, monkeypatch: pytest.MonkeyPatch, paused_for: int
) -> None:
    """Its time since boot stops while it is paused, so the server's clock seems to be set."""
    monkeypatch.setattr(type(store.database), "server_clock", lambda _: machine.shown)
    paused = Machine(NOW, "boot-2")
    watch, watch_of_paused = machine.watch(store), paused.watch(store)
    watch.look()
    watch_of_paused.look()
    retry(store, machine.shown, delay=paused_for + HOUR)
    for _ in range(3):
        machine.wait(paused_for // 3)
        watch.look()
    for _ in range(40):
        machine.wait(2 * SECOND)
        paused.up += 2 * SECOND
        assert watch_of_paused.look() is None
        assert watch.look() is None
    assert watch_of_paused.uncorrected() is None
    assert store.clocks.clock_steps(0) == []


def test_a_process_that_starts_on_a_paused_machine_waits_for_the_others(
    store: Store, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(store.database), "server_clock", lambda _: machine.shown)
    paused = Machine(NOW, "boot-2")
    paused.watch(store).look()
    watch = machine.watch(store)
    machine.wait(HOUR)
    watch.look()
    started = paused.watch(store)
    assert started.look() is None
    assert started.uncorrected() == "the clock was set forward by 3600 s"
    machine.wait(MINUTE)
    paused.up += MINUTE
    watch.look()
    assert started.look() is None
    assert started.uncorrected() is None
    assert store.clocks.clock_steps(0) == []


def test_a_machine_that_no_longer_runs_does_not_have_to_confirm_a_step(
    store: Store, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(store.database), "server_clock", lambda _: machine.shown)
    Machine(NOW, "boot-2").watch(store).look()
    watch = machine.watch(store)
    watch.look()
    machine.wait(10 * MINUTE)
    watch.look()
    machine.set_clock(HOUR)
    assert correction(watch) is not None


def test_a_time_that_a_server_reports_once_is_not_trusted(
    store: Store, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(store.database), "server_clock", lambda _: machine.shown)
    watch = machine.watch(store)
    watch.look()
    machine.set_clock(-HOUR)
    assert watch.look() is None
    machine.set_clock(HOUR)
    assert watch.look() is None
    machine.wait(SECOND)
    assert watch.look() is None
    assert store.clocks.clock_steps(0) == []


# -- records of steps


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_recorded_times_are_not_changed(store: Store, machine: Machine, by: int) -> None:
    watch = machine.watch(store)
    watch.look()
    retry(store, machine.shown)
    before = {table: list(Transfer(store.database).pages(table)) for table in HISTORY}
    task = store.queries.task("task-1")
    machine.set_clock(by)
    correction(watch)
    assert {table: list(Transfer(store.database).pages(table)) for table in HISTORY} == before
    assert replace(store.queries.task("task-1"), deadline_at=task.deadline_at) == task


def test_a_step_is_recorded_and_counted(store: Store, machine: Machine) -> None:
    meter = MetricBuffer("worker")
    watch = machine.watch(store, meter)
    watch.look()
    machine.set_clock(-HOUR)
    assert watch.uncorrected() == "the clock was set back by 3600 s"
    correction(watch)
    assert watch.uncorrected() is None
    meter.flush(store.metrics.add)
    counted = {reading.labels: reading.value for reading in store.metrics.samples()}
    assert counted == {("back",): 1}
    assert [step.text for step in store.clocks.clock_steps(machine.shown)] == [
        "the clock was set back by 3600 s"
    ]


def test_copies_include_the_corrections() -> None:
    assert {"clocks", "clock_steps"} <= set(TABLES)


# -- retention


@pytest.mark.parametrize("by", FORWARD)
def test_a_clock_that_was_set_forward_does_not_prune_early(
    store: Store, machine: Machine, by: int
) -> None:
    watch = machine.watch(store)
    watch.look()
    Ingest(store, []).accept(callback(body(), received_at=machine.shown))
    machine.wait(HOUR)
    machine.set_clock(by)
    correction(watch)
    assert pruned(store, machine.shown - DAY) == 0
    machine.wait(DAY)
    assert pruned(store, machine.shown - DAY) == 1


def test_a_step_that_was_reversed_does_not_delay_pruning(store: Store, machine: Machine) -> None:
    watch = machine.watch(store)
    watch.look()
    Ingest(store, []).accept(callback(body(), received_at=machine.shown))
    for by in (YEAR, -YEAR):
        machine.set_clock(by)
        correction(watch)
    machine.wait(DAY + 1)
    assert pruned(store, machine.shown - DAY) == 1


def test_rows_recorded_while_the_clock_was_behind_are_not_pruned_early(
    store: Store, machine: Machine
) -> None:
    watch = machine.watch(store)
    watch.look()
    machine.set_clock(-YEAR)
    correction(watch)
    Ingest(store, []).accept(callback(body(), received_at=machine.shown))
    machine.set_clock(YEAR)
    correction(watch)
    assert pruned(store, machine.shown - DAY) == 0


@pytest.mark.parametrize("by", FORWARD)
def test_an_idempotency_key_is_stored_for_a_day_of_elapsed_time(
    store: Store, machine: Machine, by: int
) -> None:
    watch = machine.watch(store)
    watch.look()
    now = machine.shown
    holder = store.idempotency.claim("key", b"digest", "task-1", now, now + MINUTE)
    assert holder is not None
    machine.wait(HOUR)
    machine.set_clock(by)
    correction(watch)
    assert store.idempotency.find("key", machine.shown + 22 * HOUR) is not None
    assert store.idempotency.find("key", machine.shown + 24 * HOUR) is None


@pytest.mark.parametrize("by", [*BACK, *FORWARD])
def test_refused_attempts_expire_in_elapsed_time(store: Store, machine: Machine, by: int) -> None:
    watch = machine.watch(store)
    watch.look()
    refuse(store, machine.shown)
    machine.set_clock(by)
    correction(watch)
    machine.wait(MINUTE)
    (left,) = store.sessions.refused_attempts(ALLOWANCE, machine.shown)
    assert 3.5 <= left.used <= 4.0  # a step of 3 s may be counted as elapsed time
    machine.wait(MINUTE)
    assert store.sessions.refused_attempts(ALLOWANCE, machine.shown) == []


@pytest.mark.parametrize("by", [*BACK, *FORWARD])
def test_a_session_lasts_its_elapsed_time(store: Store, machine: Machine, by: int) -> None:
    watch = machine.watch(store)
    watch.look()
    store.sessions.open("digest", machine.shown, machine.shown + 12 * HOUR)
    machine.set_clock(by)
    correction(watch)
    machine.wait(12 * HOUR)
    assert not store.sessions.is_open("digest", machine.shown)


# -- the last resort: times later than any possible delay


def test_a_row_with_an_impossibly_late_due_time_becomes_due(store: Store, machine: Machine) -> None:
    schedule_everything(store, machine.shown)
    later = machine.shown - 40 * DAY
    assert store.clocks.limit_schedules(later) > 0
    assert due(store, later) >= EVERYTHING - {"account"}  # a pause is limited to a day
    assert store.clocks.limit_schedules(later) == 0


def test_attempts_and_sessions_in_the_future_expire(store: Store, machine: Machine) -> None:
    """A wrong password must not lock people out for a year because the clock was ahead."""
    refuse(store, machine.shown + YEAR)
    store.sessions.open("digest", machine.shown + YEAR, machine.shown + YEAR + 12 * HOUR)
    assert store.clocks.limit_schedules(machine.shown) == 2
    machine.wait(2 * MINUTE)
    assert store.sessions.refused_attempts(ALLOWANCE, machine.shown) == []
    assert not store.sessions.is_open("digest", machine.shown)


def test_an_impossibly_long_lease_expires(store: Store, machine: Machine) -> None:
    accept(store)
    claim(store, machine.shown)
    later = machine.shown - HOUR
    assert store.clocks.limit_schedules(later) == 1
    assert len(store.outbox.expired(later + LEASE)) == 1


def test_a_possible_due_time_is_not_moved(store: Store, machine: Machine) -> None:
    schedule_everything(store, machine.shown)
    accept(store, "task-7", "other")
    claim(store, machine.shown)
    assert store.clocks.limit_schedules(machine.shown) == 0
    assert due(store, machine.shown) == set()


# -- resume


def test_resuming_an_endpoint_makes_its_retries_due_whatever_the_clock(store: Store) -> None:
    retry(store, NOW, delay=8 * HOUR)
    store.endpoints.pause("mail", NOW)
    earlier = NOW - HOUR
    assert claim(store, earlier) == []
    assert store.endpoints.resume("mail", earlier)
    assert len(claim(store, earlier)) == 1


def test_resuming_does_not_end_the_wait_for_another_hook(store: Store) -> None:
    hooks = [subscription("files"), subscription("mail", after="files", wait_ms=HOUR)]
    Ingest(store, hooks).accept(callback(body()))
    store.endpoints.pause("mail", NOW)
    store.endpoints.resume("mail", NOW)
    assert [delivery.hook for delivery in claim(store, NOW)] == ["files"]


# -- helpers

EVERYTHING = {"delivery", "deadline", "account", "circuit", "alert", "trial", "key"}


def schedule_everything(store: Store, now: int) -> None:
    """Schedule one row of each kind for a minute from now."""
    at = now + MINUTE
    retry(store, now, MINUTE)
    task = Task("task-2", "kling", Status.CREATED, now, now, deadline_at=at)
    store.inbox.create_task(task)
    store.inbox.create_task(replace(task, id="task-3", account="second", deadline_at=now))
    store.polling.pause("kling:second", at)
    accept(store, "task-4", "slack", at=now)
    (delivery,) = claim(store, now)
    attempt = Attempt(delivery.attempts, now, now, "failed", "no answer")
    breaker = Breaker(failures=1, seconds=0, pauses=(60,))
    store.outbox.settle(
        delivery,
        attempt,
        State.PENDING,
        now,
        change=lambda endpoint: breaker.after(endpoint, EndpointHealth.FAILS, now, "no answer"),
    )
    assert store.endpoints.of("slack").circuit(now) is Circuit.OPEN
    (alert,) = store.endpoints.take_alerts(now, at)
    assert alert.kind is AlertKind.PAUSED
    store.endpoints.request_test("mail", "succeeded", now)
    store.endpoints.claim_tests(now, at)
    store.idempotency.claim("key", b"digest", "task-6", now, at)


def due(store: Store, now: int) -> set[str]:
    """Return which rows of `schedule_everything` are due; due rows stay due."""
    tasks = {task.id for task in store.polling.claim_overdue(now, now, 9)}
    key = store.idempotency.find("key", now)
    checks: dict[str, Callable[[], bool]] = {
        "delivery": lambda: (store.lists.deliveries(task_id="task-1")[0].due_at or LATE) <= now,
        "deadline": lambda: "task-2" in tasks,
        "account": lambda: "task-3" in tasks,
        "circuit": lambda: store.endpoints.of("slack").circuit(now) is Circuit.HALF_OPEN,
        "alert": lambda: store.endpoints.take_alerts(now, now) != [],
        "trial": lambda: store.endpoints.claim_tests(now, now) != [],
        "key": lambda: key is not None and key.held_until <= now,
    }
    return {name for name, is_due in checks.items() if is_due()}


def pruned(store: Store, older_than: int) -> int:
    return sum(step.callbacks for step in prune(store, older_than))
