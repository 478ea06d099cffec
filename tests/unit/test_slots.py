"""The division of a worker's slots among the hooks; the time is passed in."""

from __future__ import annotations

import pytest

from receiver.delivery.worker_slots import PROMPT_FOR, WATCHED_FOR, Reservation, WorkerSlots
from receiver.stores.sql.hook_queues import Candidate


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """The slots of a worker, with deliveries numbered by the test."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.slots = WorkerSlots(count, self.clock)
        self.last = 0

    def begin(self, hook: str, *, timed_out: bool = False, abandoned: bool = False) -> int | None:
        """Return the number of the delivery that began, or None if there was no slot."""
        self.last += 1
        has_begun = self.slots.begin(Candidate(self.last, hook, timed_out, abandoned))
        return self.last if has_begun else None

    def fill(self, hook: str, *, timed_out: bool = False) -> int:
        """Begin deliveries of this hook until it gets no slot, and return how many began."""
        begun = 0
        while self.begin(hook, timed_out=timed_out) is not None:
            begun += 1
        return begun

    def deliver(self, hook: str) -> None:
        number = self.begin(hook)
        assert number is not None
        self.slots.end(number, delivered=True)


@pytest.mark.parametrize(("count", "most"), [(1, 1), (2, 1), (3, 2), (4, 2), (8, 4), (64, 32)])
def test_a_hook_without_history_leaves_half_of_the_slots(count: int, most: int) -> None:
    assert Worker(count).fill("mail") == most


@pytest.mark.parametrize(("count", "most"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 7), (64, 63)])
def test_a_hook_that_delivers_uses_all_slots_but_one(count: int, most: int) -> None:
    worker = Worker(count)
    worker.deliver("mail")
    assert worker.fill("mail") == most


@pytest.mark.parametrize("count", [1, 2, 4, 64])
def test_a_hook_that_timed_out_uses_one_slot(count: int) -> None:
    worker = Worker(count)
    worker.deliver("mail")
    assert worker.fill("mail", timed_out=True) == 1


def test_two_hooks_that_hang_leave_one_of_four_slots() -> None:
    worker = Worker(4)
    assert worker.fill("mail") == 2
    assert worker.fill("slow") == 1
    assert worker.fill("other") == 1


def test_three_hooks_that_timed_out_leave_one_of_four_slots() -> None:
    worker = Worker(4)
    for hook in ("mail", "slow", "third"):
        assert worker.fill(hook, timed_out=True) == 1
    assert worker.fill("other") == 1


def test_a_hook_without_running_attempts_gets_the_last_slot() -> None:
    worker = Worker(2)
    assert worker.fill("mail") == 1
    assert worker.fill("slow", timed_out=True) == 1
    assert worker.begin("other") is None


def test_a_freed_slot_is_used_again() -> None:
    worker = Worker(2)
    first = worker.begin("mail")
    assert first is not None
    assert worker.begin("mail") is None
    worker.slots.end(first)
    assert worker.begin("mail") is not None


def test_a_success_counts_for_some_seconds() -> None:
    worker = Worker(4)
    worker.deliver("mail")
    worker.clock.now += PROMPT_FOR
    assert worker.fill("mail") == 2


def test_a_failure_does_not_count_as_a_success() -> None:
    worker = Worker(4)
    number = worker.begin("mail")
    assert number is not None
    worker.slots.end(number)
    assert worker.fill("mail") == 2


def test_a_running_delivery_gets_no_second_slot() -> None:
    slots = WorkerSlots(4)
    delivery = Candidate(1, "mail", timed_out=False, abandoned=False)
    assert slots.begin(delivery)
    assert not slots.begin(delivery)
    assert slots.free == 3


def test_abandoned_deliveries_begin_one_after_the_other() -> None:
    worker = Worker(8)
    first = worker.begin("mail", abandoned=True)
    assert first is not None
    assert worker.begin("slow", abandoned=True) is None
    assert worker.begin("slow") is not None  # a healthy delivery is not delayed
    worker.slots.end(first)
    assert worker.begin("slow", abandoned=True) is not None


def test_an_abandoned_delivery_that_hangs_delays_the_others_only_briefly() -> None:
    worker = Worker(8)
    assert worker.begin("mail", abandoned=True) is not None
    worker.clock.now += WATCHED_FOR
    assert worker.begin("slow", abandoned=True) is not None


def test_a_reservation_frees_the_slots_that_were_not_claimed() -> None:
    slots = WorkerSlots(4)
    claimed, undone = (Candidate(n, "mail", timed_out=False, abandoned=False) for n in (1, 2))
    with Reservation(slots) as reservation:
        assert reservation.begin(claimed)
        assert reservation.begin(claimed)  # the transaction was repeated
        assert reservation.begin(undone)
        reservation.keep([1])
    assert slots.free == 3


def test_a_reservation_does_not_free_the_slots_of_another() -> None:
    slots = WorkerSlots(4)
    delivery = Candidate(1, "mail", timed_out=False, abandoned=False)
    with Reservation(slots) as first:
        assert first.begin(delivery)
        first.keep([1])
    with Reservation(slots) as second:
        assert not second.begin(delivery)
    assert slots.free == 3


def test_a_transaction_that_outlasts_its_reservation_gets_no_slot() -> None:
    """Its caller has stopped waiting for the commit, so nothing would free the slot."""
    slots = WorkerSlots(4)
    with Reservation(slots) as reservation:
        assert reservation.begin(Candidate(1, "mail", timed_out=False, abandoned=False))
    for delivery_id in (1, 2):
        late = Candidate(delivery_id, "mail", timed_out=False, abandoned=False)
        assert not reservation.begin(late)
    assert slots.free == 4
