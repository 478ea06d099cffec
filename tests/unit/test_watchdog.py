"""One thread enforces all deadlines of a process."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest

from receiver.outgoing import deadline
from receiver.outgoing.deadline import Deadline, Watchdog
from tests.support.log_records import LogRecords
from tests.support.patience import PATIENCE, wait_until


def test_many_deadlines_share_one_thread() -> None:
    before = set(threading.enumerate())
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Deadline(PATIENCE))
        (thread,) = set(threading.enumerate()) - before
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_calls_are_made_in_the_order_of_their_times() -> None:
    watchdog, calls, now = Watchdog(), list[str](), time.monotonic()
    watchdog.call_at("late", now + 0.05, lambda: calls.append("late"))
    watchdog.call_at("never", now + PATIENCE, lambda: calls.append("never"))
    watchdog.call_at("soon", now + 0.01, lambda: calls.append("soon"))
    watchdog.call_at("replaced", now + 0.02, lambda: calls.append("never"))
    watchdog.call_at("replaced", now + 0.02, lambda: calls.append("replaced"))
    wait_until(lambda: len(calls) == 3)
    watchdog.cancel("never")
    assert calls == ["soon", "replaced", "late"]


def test_a_call_that_fails_prevents_no_other(log_records: LogRecords) -> None:
    watchdog, done = Watchdog(), threading.Event()
    watchdog.call_at("bad", 0, lambda: 1 // 0)
    watchdog.call_at("good", time.monotonic() + 0.01, done.set)
    assert done.wait(PATIENCE)
    assert "ZeroDivisionError" in log_records.text


def test_a_released_connection_is_left_alone_although_the_deadline_passes() -> None:
    with Deadline(5) as clock:
        assert clock.release()
    with Deadline(0.001) as clock:
        wait_until(lambda: clock.passed)
        assert not clock.release()


def test_calls_that_do_not_end_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as lookups of a name server that never responds."""
    monkeypatch.setattr(deadline, "_running", threading.BoundedSemaphore(2))
    release, begun = threading.Event(), list[int]()

    def work() -> None:
        begun.append(1)
        release.wait(PATIENCE)

    for _ in range(5):
        with Deadline(0.02) as clock, pytest.raises(TimeoutError):
            clock.run(work)
    wait_until(lambda: len(begun) == 2)
    release.set()
    with Deadline(PATIENCE) as clock:
        assert clock.run(lambda: 7) == 7
    assert len(begun) == 2
