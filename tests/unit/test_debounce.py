"""What is asked for runs soon, never twice at once, and again for who asked while it ran."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from receiver.web.debounce import Debouncer
from tests.support.patience import PATIENCE


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What the timers that were started are to call; the test calls it when time is up."""
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


def test_who_asks_while_it_runs_is_served_by_a_run_of_their_own(
    due: list[Callable[[], None]],
) -> None:
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        if len(runs) == 1:
            for _ in range(5):
                later.schedule()
            assert due == []  # it never runs twice at once

    later = Debouncer(run, 60)
    later.schedule()
    later.schedule()
    assert len(due) == 1
    due.pop()()
    assert len(due) == 1  # five who asked are served by one
    due.pop()()
    assert (len(runs), due) == (2, [])


def test_what_is_closed_runs_no_more(due: list[Callable[[], None]]) -> None:
    later = Debouncer(lambda: None, 60)
    later.schedule()
    assert len(due) == 1
    later.close()
    assert due == []


def test_no_thread_now_is_no_error_and_the_next_who_asks_tries_again(
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
