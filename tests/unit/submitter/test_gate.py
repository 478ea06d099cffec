"""One account's creates while its provider says "later"."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from submitter.errors import TryLater, WrongInput
from submitter.gate import AT_MOST, DELAYS, Gate


def gate(stop: threading.Event | None = None, at_most: float = 30.0) -> Gate:
    return Gate(stop or threading.Event(), delays=(0.02, 0.04), at_most=at_most)


def later(**more: float) -> TryLater:
    return TryLater("Kling 1303: busy", **more)


def test_delays_begin_at_a_second_and_stay_below_the_time_of_a_try_on() -> None:
    assert DELAYS[0] * 0.9 > 1
    assert tuple(sorted(DELAYS)) == DELAYS
    assert DELAYS[-1] < 20 < AT_MOST


def test_what_is_served_at_once_passes() -> None:
    assert gate().persist(lambda: "done") == "done"


def test_another_error_passes_too() -> None:
    def call() -> None:
        raise WrongInput("no")

    with pytest.raises(WrongInput):
        gate().persist(call)


def test_while_it_is_closed_nobody_else_asks() -> None:
    """Three slots, ten creates: each slot that gets free is asked for by one at a time."""
    shared = gate()
    lock = threading.Lock()
    asking: list[int] = []
    running: list[float] = []  # when each that was taken ends
    most_at_once = 0
    refused = 0

    def call() -> str:
        nonlocal most_at_once, refused
        with lock:
            asking.append(1)
            most_at_once = max(most_at_once, len(asking))
            now = time.monotonic()
            running[:] = [end for end in running if end > now]
            is_taken = len(running) < 3
            if is_taken:
                running.append(now + 0.1)
            else:
                refused += 1
        time.sleep(0.005)
        with lock:
            asking.pop()
        if not is_taken:
            raise later()
        return "done"

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(lambda _: shared.persist(call), range(10))) == ["done"] * 10
    assert refused < 30  # ten that ask in turns of their own would be refused far more often


def test_a_wait_that_is_asked_for_holds_back_everyone() -> None:
    shared = gate()
    told = [later(retry_after=0.3)]

    def call() -> float:
        if told:
            raise told.pop()
        return time.monotonic()

    began_at = time.monotonic()
    assert shared.persist(call) - began_at >= 0.3
    told.append(later(retry_after=0.3))
    first = threading.Thread(target=shared.persist, args=(call,))
    first.start()
    time.sleep(0.05)
    began_at = time.monotonic()
    shared.wait()
    assert time.monotonic() - began_at > 0.15
    first.join()


def test_one_account_does_not_slow_another() -> None:
    slow, quick = gate(), gate()
    told = [later(retry_after=0.5)]

    def call() -> None:
        if told:
            raise told.pop()

    thread = threading.Thread(target=slow.persist, args=(call,))
    thread.start()
    time.sleep(0.05)
    began_at = time.monotonic()
    quick.wait()
    quick.persist(lambda: None)
    assert time.monotonic() - began_at < 0.2
    thread.join()


def test_patience_ends_for_all_when_it_ends_for_one() -> None:
    shared = gate(at_most=0.2)
    calls = []

    def call() -> None:
        calls.append(1)
        raise later()

    began_at = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        for outcome in [pool.submit(shared.persist, call) for _ in range(4)]:
            assert isinstance(outcome.exception(), TryLater)
    assert time.monotonic() - began_at < 1  # and not 0.2 s for each in the queue
    calls.clear()
    with pytest.raises(TryLater):
        shared.persist(call)
    assert len(calls) == 1


def test_a_wait_beyond_all_patience_is_told_at_once() -> None:
    def call() -> None:
        raise later(retry_after=3600)

    with pytest.raises(TryLater) as caught:
        gate().persist(call)
    assert caught.value.retry_after == 3600


def test_a_stop_wakes_everyone() -> None:
    stop = threading.Event()
    shared = gate(stop)

    def call() -> None:
        raise later(retry_after=20)

    with ThreadPoolExecutor(4) as pool:
        outcomes = [pool.submit(shared.persist, call) for _ in range(4)]
        time.sleep(0.1)
        began_at = time.monotonic()
        stop.set()
        shared.wait()
        for outcome in outcomes:
            assert isinstance(outcome.exception(), TryLater)
    assert time.monotonic() - began_at < 2
