"""A requested run starts soon, never concurrently, and again for requests made during it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from receiver.web.debounce import Debouncer
from tests.support.patience import PATIENCE


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """The callbacks of the timers that were started, which the test calls."""
    started: list[Callable[[], None]] = []

    class Timer:
        def __init__(self, _: float, call: Callable[[], None]) -> None:
            self.call = call

        def start(self) -> None:
            started.append(self.call)

        def cancel(self) -> None:
            started.remove(self.call)

    monkeypatch.setattr("receiver.web.debounce.Timer", Timer)
    return started


def test_requests_during_a_run_cause_one_more_run(
    due: list[Callable[[], None]],
) -> None:
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        if len(runs) == 1:
            for _ in range(5):
                later.schedule()
            assert due == []  # it never runs twice at the same time

    later = Debouncer(run, 60)
    later.schedule()
    later.schedule()
    assert len(due) == 1
    due.pop()()
    assert len(due) == 1  # five requests are served by one run
    due.pop()()
    assert (len(runs), due) == (2, [])


def test_after_closing_nothing_runs(due: list[Callable[[], None]]) -> None:
    later = Debouncer(lambda: None, 60)
    later.schedule()
    assert len(due) == 1
    later.close()
    assert due == []


def test_a_thread_that_cannot_be_started_is_no_error_and_the_next_request_retries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    has_run = threading.Event()
    later = Debouncer(has_run.set, 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Timer, "start", fails)
        later.schedule()
    later.schedule()
    assert has_run.wait(PATIENCE)
