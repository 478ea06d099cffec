"""The limits of a hook apply to all workers together, and do not affect other hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest

from receiver.deliveries import Attempt, Delivery, Notice, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.worker_slots import WorkerSlots
from receiver.endpoints import Circuit, Endpoint, Limits, Rate
from receiver.errors import TemporaryFailure
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.outgoing.retry import RetryPolicy
from receiver.stores.base import Store
from receiver.stores.sql.claims import ClaimedDelivery
from receiver.stores.sql.endpoint_status import endpoint_statuses
from receiver.stores.sql.metrics import Backlog
from receiver.stores.sql.outbox import Settlement
from tests.support.attempts import make_attempt
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
LEASE = 10_000
TEN = {"mail": Limits(Rate(10, "s"))}
TWO = {"mail": Limits(concurrency=2)}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


class Scripted:
    """A hook that fails or succeeds, as the test sets."""

    def __init__(self, answer: Done | Exception) -> None:
        self.name = "mail"
        self.answer = answer

    def send(self, notice: Notice) -> Done:
        del notice
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def slots(limits: Mapping[str, Limits], count: int = 100) -> WorkerSlots:
    return WorkerSlots(count, limits=lambda: limits)


def record(store: Store, count: int, *hooks: str) -> None:
    ingest = Ingest(store, [subscription(hook) for hook in hooks or ("mail",)])
    for number in range(count):
        ingest.accept(callback(body(), f"task-{number:03}", received_at=NOW))


def claim(
    store: Store, limits: Mapping[str, Limits], now: int = NOW, most: int = 9, worker: str = "w"
) -> list[ClaimedDelivery]:
    return store.outbox.claim(worker, now, now + LEASE, most, slots(limits))


def settlement(delivery: Delivery, at: int = NOW, outcome: str = "delivered") -> Settlement:
    attempt = Attempt(delivery.attempts, at, at, outcome, "ok")
    state = State.DELIVERED if outcome == "delivered" else State.PENDING
    return Settlement(delivery, attempt, state, None if state is State.DELIVERED else at)


def settle(store: Store, delivery: Delivery, at: int = NOW, outcome: str = "delivered") -> None:
    one = settlement(delivery, at, outcome)
    assert store.outbox.settle(one.delivery, one.attempt, one.state, one.due_at)


def test_a_rate_limits_all_workers_together(store: Store) -> None:
    """Two workers check for due deliveries every 5 ms, for 3 seconds."""
    record(store, 40)
    begun: list[int] = []
    for now in range(NOW, NOW + 3_000, 5):
        worker = "one" if now % 2 else "two"
        begun += [now] * len(claim(store, TEN, now, worker=worker))
    assert all(sum(start <= at < start + 1_000 for at in begun) <= 10 for start in begun)
    assert len(begun) == 29  # one every 105 ms


def test_a_delivery_that_waits_for_the_rate_has_no_attempt_and_is_due_when_it_may_begin(
    store: Store,
) -> None:
    record(store, 3)
    (first,) = claim(store, TEN)
    assert store.outbox.next_due_at(NOW, slots(TEN)) == NOW + 80
    assert claim(store, TEN, NOW + 79) == []
    settle(store, first)
    (second,) = claim(store, TEN, NOW + 80)
    waiting = store.lists.deliveries(state=State.PENDING)
    assert [delivery.attempts for delivery in (second, *waiting)] == [1, 0]
    assert store.endpoints.of("mail") == Endpoint("mail")


def test_a_worker_that_does_not_know_the_limit_is_not_limited(store: Store) -> None:
    record(store, 5)
    assert len(claim(store, TEN)) == 1
    assert len(claim(store, {})) == 4


def test_a_retry_after_that_is_later_than_the_limit_counts(store: Store) -> None:
    record(store, 1)
    (delivery,) = claim(store, TEN)
    attempt = Attempt(1, NOW, NOW, "failed", "429")
    store.outbox.settle(delivery, attempt, State.PENDING, NOW + 60_000)
    assert store.outbox.next_due_at(NOW, slots(TEN)) == NOW + 60_000
    assert claim(store, TEN, NOW + 59_999) == []
    assert len(claim(store, TEN, NOW + 60_000)) == 1


def test_a_concurrency_limit_counts_the_deliveries_of_all_workers(store: Store) -> None:
    record(store, 5)
    first = claim(store, TWO, most=1, worker="one")
    second = claim(store, TWO, worker="two")
    assert [len(first), len(second)] == [1, 1]
    assert claim(store, TWO) == []
    assert store.outbox.next_due_at(NOW, slots(TWO)) is None
    settle(store, first[0])
    assert len(claim(store, TWO)) == 1


def test_a_concurrency_limit_counts_only_deliveries_of_its_hook(store: Store) -> None:
    record(store, 3, "mail", "shop")
    limits = {"mail": Limits(concurrency=1), "shop": Limits(concurrency=2)}
    assert [delivery.hook for delivery in claim(store, limits, most=1)] == ["mail"]
    assert [delivery.hook for delivery in claim(store, limits)] == ["shop", "shop"]
    assert claim(store, limits) == []


def test_deliveries_that_begin_together_all_use_up_the_rate(store: Store) -> None:
    """After an hour without any, three begin together, and then one each 37.8 s."""
    record(store, 6)
    limits = {"mail": Limits(Rate(100, "h"))}
    assert len(claim(store, limits)) == 3
    opens_at = NOW - 90_000 + 3 * 37_800
    assert store.outbox.next_due_at(NOW, slots(limits)) == opens_at
    assert claim(store, limits, opens_at - 1) == []
    assert len(claim(store, limits, opens_at)) == 1


def test_a_slot_that_becomes_free_takes_the_next_delivery(store: Store) -> None:
    record(store, 5)
    one, two = claim(store, TWO)
    values = ([settlement(one)], "w", NOW, NOW + LEASE, 4, slots(TWO))
    _, (third,) = store.outbox.exchange(*values)
    assert third.id not in (one.id, two.id)


def test_the_deliveries_of_a_dead_worker_stop_counting_when_their_leases_expire(
    store: Store,
) -> None:
    record(store, 5)
    lost, renewed = claim(store, TWO)
    store.outbox.renew([renewed], NOW + 60_000)
    assert claim(store, TWO, NOW + LEASE - 1) == []
    assert len(claim(store, TWO, NOW + LEASE)) == 1
    settle(store, lost, NOW + LEASE, "abandoned")
    assert claim(store, TWO, NOW + LEASE) == []


@pytest.mark.parametrize("limits", [TEN, TWO, {"mail": Limits(Rate(1, "h"), 1)}])
def test_other_hooks_are_not_delayed(store: Store, limits: Mapping[str, Limits]) -> None:
    record(store, 6, "mail", "shop")
    begun = Counter(delivery.hook for delivery in claim(store, limits, most=20))
    assert begun["shop"] == 6
    assert begun["mail"] == (2 if limits is TWO else 1)
    assert claim(store, limits, most=20) == []


def test_a_hook_that_waits_occupies_no_slot(store: Store) -> None:
    record(store, 6, "mail", "shop")
    admission = slots(TEN, 4)
    found = store.outbox.claim("w", NOW, NOW + LEASE, 4, admission)
    assert sorted(delivery.hook for delivery in found) == ["mail", "shop", "shop"]
    assert admission.free == 1


def test_a_half_open_circuit_gets_one_delivery_whatever_the_limits(store: Store) -> None:
    record(store, 5)
    (delivery,) = claim(store, {}, most=1)
    half_open = Endpoint("mail", 9, NOW, openings=1, retry_at=NOW + 1_000)
    attempt = Attempt(1, NOW, NOW, "failed", "no")
    store.outbox.settle(delivery, attempt, State.DEAD, None, change=lambda _: (half_open, None))
    assert store.endpoints.of("mail").circuit(NOW + 1_000) is Circuit.HALF_OPEN
    limits = {"mail": Limits(Rate(100_000, "s"), 5)}
    assert len(claim(store, limits, NOW + 1_000)) == 1
    assert claim(store, limits, NOW + 2_000) == []


def test_a_refused_reservation_does_not_use_up_the_rate(store: Store) -> None:
    record(store, 2, "shop", "mail")
    only = slots(TEN, 1)
    found = store.outbox.claim("w", NOW, NOW + LEASE, 5, only)
    assert [delivery.hook for delivery in found] == ["shop"]
    assert [delivery.hook for delivery in claim(store, TEN)] == ["mail", "shop"]


def test_the_status_names_the_limit_that_deliveries_wait_for(store: Store) -> None:
    record(store, 5)
    limits = {"mail": Limits(Rate(10, "s"), 2)}

    def wait(now: int) -> str:
        (status,) = endpoint_statuses(store, ["mail"], now, limits)
        assert status.limits == limits["mail"]
        assert status.state in ("healthy", "not used yet")
        return status.wait(lambda at: f"{at - NOW} ms")

    assert wait(NOW) == ""
    claim(store, limits)
    assert wait(NOW) == "rate limit 10/s, next at 80 ms"
    assert wait(NOW + 80) == ""
    claim(store, limits, NOW + 80)
    assert wait(NOW + 80) == "concurrency limit 2, 2 running"
    store.endpoints.pause("mail", NOW)
    assert store.outbox.held(limits, NOW + 80) == {}  # held by the pause, not by a limit


def test_the_backlog_counts_deliveries_that_wait_for_limits_as_held(store: Store) -> None:
    record(store, 5)
    claim(store, TEN)
    assert store.metrics.backlog(NOW, ["mail"], TEN) == Backlog(4, 0, None, held=4)
    assert store.metrics.backlog(NOW + 85, ["mail"], TEN) == Backlog(4, 0, NOW + 80, held=0)
    much_later = NOW + 600_000  # no worker is running
    assert store.metrics.backlog(much_later, ["mail"], TEN) == Backlog(4, 0, NOW + 80, held=0)
    assert store.metrics.backlog(NOW, ["mail"]) == Backlog(4, 0, NOW, held=0)


@pytest.mark.parametrize(
    ("by_ms", "moved_ms"),
    [
        (-600_000, -600_000),
        (-864_000_000, -864_000_000),
        (864_000_000, 864_000_000),
        (600_000, 0),  # less than the remaining time, so the next delivery begins earlier
    ],
)
def test_a_clock_that_is_set_moves_the_rate_with_the_schedules(
    store: Store, by_ms: int, moved_ms: int
) -> None:
    """The rate is used up, and stays so."""
    record(store, 5)
    hourly = {"mail": Limits(Rate(1, "h"))}
    store.clocks.correct_clock("boot", 0, NOW)
    assert len(claim(store, hourly)) == 1
    opens_at = store.outbox.next_due_at(NOW, slots(hourly))
    assert opens_at == NOW + 3_690_000
    store.clocks.correct_clock("boot", by_ms, NOW + by_ms)
    opens_at += moved_ms
    assert store.outbox.next_due_at(NOW + by_ms, slots(hourly)) == opens_at
    assert claim(store, hourly, opens_at - 1) == []
    assert len(claim(store, hourly, opens_at)) == 1


@pytest.mark.parametrize("by_ms", [-600_000, 600_000])
def test_a_clock_that_is_set_keeps_the_concurrency(store: Store, by_ms: int) -> None:
    """The leases are moved as well, so running deliveries count, and a dead worker's end."""
    record(store, 3)
    one = {"mail": Limits(concurrency=1)}
    store.clocks.correct_clock("boot", 0, NOW)
    assert len(claim(store, one)) == 1
    store.clocks.correct_clock("boot", by_ms, NOW + by_ms)
    assert claim(store, one, NOW + by_ms) == []
    assert claim(store, one, NOW + by_ms + LEASE - 1) == []
    assert len(claim(store, one, NOW + by_ms + LEASE)) == 1


def test_a_clock_that_was_set_back_delays_no_hook(store: Store) -> None:
    """This also holds before the schedules are corrected."""
    record(store, 1)
    assert len(claim(store, TEN)) == 1
    set_back = NOW - 3_900_000
    Ingest(store, [subscription("mail")]).accept(callback(body(), "new", received_at=set_back))
    assert len(claim(store, TEN, set_back)) == 1
    assert claim(store, TEN, set_back + 79) == []


def test_prune_deletes_the_pace_of_a_hook_that_is_not_used(store: Store) -> None:
    record(store, 2)
    claim(store, TEN)
    assert store.retention.prune_rows(NOW) == 0
    assert store.retention.prune_rows(NOW + 1_000) == 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


def worker(
    store: Store, hook: Scripted, clock: Clock, policies: Mapping[str, RetryPolicy]
) -> DeliveryWorker:
    return DeliveryWorker(
        store, {"mail": hook}, clock=clock, chance=lambda: 0.5, policies=lambda: policies
    )


def test_a_hook_has_its_own_retries(store: Store, clock: Clock) -> None:
    record(store, 1)
    failing = Scripted(TemporaryFailure("no"))
    deliver = worker(store, failing, clock, {"mail": RetryPolicy((5, 60, 3_600))})
    waits = []
    while True:
        (delivery,) = store.outbox.claim("w", clock.now, clock.now + LEASE, 1)
        if make_attempt(deliver, delivery) is State.DEAD:
            break
        due_at = store.queries.delivery(delivery.id).due_at or 0
        waits.append((due_at - clock.now) / 1_000)
        store.endpoints.resume("mail")  # otherwise the delivery waits for the circuit
        clock.now = due_at
    assert waits == [5, 60, 3_600]


def test_the_retries_of_a_hook_are_not_used_up_by_workers_that_die(
    store: Store, clock: Clock
) -> None:
    record(store, 1)
    deliver = worker(store, Scripted(Done("ok")), clock, {"mail": RetryPolicy(())})
    (delivery,) = store.outbox.claim("w", clock.now, clock.now + LEASE, 1)
    clock.now += LEASE
    assert deliver.abandon(delivery) is State.PENDING


def test_a_delivery_that_became_due_since_the_claim_begins_immediately(
    store: Store, clock: Clock
) -> None:
    """The rate allows it after the claim, but before the worker computes how long to sleep."""
    record(store, 3)
    deliver = replace(worker(store, Scripted(Done("ok")), clock, {}), limits=lambda: TEN)
    assert len(deliver.claim()) == 1
    assert deliver.seconds_until_due(1.0) == 0.08
    assert deliver.claim() == []
    clock.now += 200
    assert deliver.seconds_until_due(1.0) == 0
    assert deliver.seconds_until_due(1.0) == 1.0  # nothing was claimed: another worker holds it
