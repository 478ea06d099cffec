"""The create requests of one account while its provider rejects them temporarily."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pytest

from submitter.batch.shared_backoff import DELAYS, MAX_SECONDS, SharedBackoff
from submitter.errors import TryLater, WrongInput
from tests.support.patience import PATIENCE


class Time(threading.Event):
    """A clock that advances when a caller waits; it is also the event that stops all waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.slept: list[float] = []
        # called once, by the next waiting caller
        self.meanwhile: Callable[[], object] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        seconds = timeout or 0.0
        self.slept.append(seconds)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        self.now += seconds
        return self.is_set()


def backoff(time: Time, max_seconds: float = 30.0) -> SharedBackoff:
    return SharedBackoff(
        time, (0.02, 0.04), max_seconds, chance=lambda: 0.5, clock=lambda: time.now
    )


def later(**more: float) -> TryLater:
    return TryLater("Kling 1303: busy", **more)


def test_delays_begin_at_a_second_and_stay_below_the_duration_of_a_try_on() -> None:
    assert DELAYS[0] * 0.9 > 1
    assert tuple(sorted(DELAYS)) == DELAYS
    assert DELAYS[-1] < 20 < MAX_SECONDS


def test_an_immediate_response_is_returned() -> None:
    time = Time()
    assert backoff(time).persist(lambda: "done") == "done"
    assert time.slept == []


def test_other_errors_are_raised() -> None:
    def call() -> None:
        raise WrongInput("no")

    with pytest.raises(WrongInput):
        backoff(Time()).persist(call)


def test_only_one_caller_at_a_time_retries_while_the_provider_is_busy() -> None:
    """There are three slots and ten creates; only one caller at a time tries to get a free slot."""
    shared = backoff(Time())
    all_have_called = threading.Barrier(10)
    callers: list[int] = []  # the thread of each call

    def answer(thread: int) -> tuple[int, bool]:
        callers.append(thread)
        number = len(callers)
        # The first three calls succeed; after that, every third call gets a free slot.
        return number, number <= 3 if number <= 10 else number % 3 == 0

    def call() -> str:
        # The other threads run meanwhile; without a queue, their calls would be in between.
        number, is_taken = provider.submit(answer, threading.get_ident()).result()
        if number <= 10:
            all_have_called.wait(PATIENCE)
        if not is_taken:
            raise later()
        return "done"

    with ThreadPoolExecutor(1) as provider, ThreadPoolExecutor(10) as pool:
        assert list(pool.map(lambda _: shared.persist(call), range(10))) == ["done"] * 10
    turns = [list(turn) for _, turn in groupby(callers[10:])]
    assert [len(turn) for turn in turns] == [2, 3, 3, 3, 3, 3, 3]
    assert len({turn[0] for turn in turns}) == 7


def test_a_requested_delay_applies_to_every_caller() -> None:
    time = Time()
    shared = backoff(time)
    errors = [later(retry_after=0.3)]

    def call() -> float:
        if errors:
            raise errors.pop()
        return time.now

    time.meanwhile = shared.wait  # another thread calls while the first one waits
    assert shared.persist(call) >= 0.3
    assert time.slept == [0.3, 0.3]


def test_a_short_wait_does_not_shorten_a_long_one() -> None:
    """Two creates are running when the account becomes busy, and receive different delays."""
    waited: list[float] = []

    class Passes(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            return True

    shared = SharedBackoff(Passes(), delays=(0.02, 0.04), max_seconds=600)
    first, second = [later(retry_after=100)], [later(retry_after=1)]

    def requests_long_delay() -> None:
        if first:
            raise first.pop()

    def requests_short_delay() -> None:
        if second:
            shared.persist(requests_long_delay)
            raise second.pop()

    shared.persist(requests_short_delay)
    assert [round(seconds, -1) for seconds in waited] == [100, 100]


def test_one_account_does_not_delay_another() -> None:
    time = Time()
    slow, quick = backoff(time), backoff(time)
    errors = [later(retry_after=0.5)]
    slept_before: list[list[float]] = []

    def call() -> None:
        if errors:
            raise errors.pop()

    def use_another() -> None:
        quick.wait()
        quick.persist(lambda: None)
        slept_before.append(list(time.slept))

    time.meanwhile = use_another
    slow.persist(call)
    assert slept_before == [[0.5]]  # the other account did not sleep


def test_retries_end_for_all_callers_together() -> None:
    time = Time()
    shared = backoff(time, max_seconds=0.2)
    calls = []

    def call() -> None:
        calls.append(1)
        raise later()

    with ThreadPoolExecutor(4) as pool:
        for outcome in [pool.submit(shared.persist, call) for _ in range(4)]:
            assert isinstance(outcome.exception(), TryLater)
    assert 0.1 < time.now <= 0.2  # and not 0.2 s for each caller in the queue
    calls.clear()
    with pytest.raises(TryLater):
        shared.persist(call)
    assert len(calls) == 1


def test_a_delay_beyond_the_limit_is_raised_immediately() -> None:
    time = Time()

    def call() -> None:
        raise later(retry_after=3600)

    with pytest.raises(TryLater) as caught:
        backoff(time).persist(call)
    assert caught.value.retry_after == 3600
    assert time.slept == []


class Stop(threading.Event):
    """A real stop event that signals when a caller waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waited_for = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.is_waited_for.set()
        return super().wait(timeout)


def test_a_stop_wakes_all_waiting_callers() -> None:
    stop = Stop()
    shared = SharedBackoff(stop, (0.02, 0.04), max_seconds=100 * PATIENCE)

    def call() -> None:
        raise later(retry_after=10 * PATIENCE)

    with ThreadPoolExecutor(4) as pool:
        outcomes = [pool.submit(shared.persist, call) for _ in range(4)]
        assert stop.is_waited_for.wait(PATIENCE)
        stop.set()
        shared.wait()
        for outcome in outcomes:
            assert isinstance(outcome.exception(), TryLater)
