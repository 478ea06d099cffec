"""What is asked for runs soon, never twice at once, and again for who asked while it ran."""

from __future__ import annotations

import threading

import pytest

from receiver.later import Later


def test_who_asks_while_it_runs_is_served_by_a_run_of_their_own() -> None:
    inside, go_on, runs = threading.Event(), threading.Event(), threading.Semaphore(0)
    at_once: list[int] = []

    def run() -> None:
        at_once.append(1)
        assert len(at_once) == 1
        inside.set()
        go_on.wait(30)
        at_once.pop()
        runs.release()

    later = Later(run, 0.01)
    later.ask()
    assert inside.wait(30)
    for _ in range(5):
        later.ask()
    go_on.set()
    assert runs.acquire(timeout=30)
    assert runs.acquire(timeout=30)
    assert not runs.acquire(timeout=0.1)  # five who asked are served by one


def test_no_thread_now_is_no_error_and_the_next_who_asks_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    has_run = threading.Event()
    later = Later(has_run.set, 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Timer, "start", fails)
        later.ask()
    later.ask()
    assert has_run.wait(30)
