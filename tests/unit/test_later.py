"""What is asked for runs soon, never twice at once, and again for who asked while it ran."""

from __future__ import annotations

import threading

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
