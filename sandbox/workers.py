"""Threads that run jobs, immediately or at a later time."""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Job = Callable[[], None]


class Workers:
    """A fixed number of threads that run jobs.

    The threads are daemons, because a callback that waits for a silent receiver must not delay the
    end of the process. A job that raises is a bug in the sandbox, and ends its thread with a
    traceback.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True)
            for n in range(threads)
        ]
        self._stopped = threading.Event()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def do(self, job: Job) -> None:
        self._jobs.put(job)

    def stop(self, patience: float = 1.0) -> None:
        """Drop the jobs that have not begun; wait up to `patience` seconds for the others."""
        self._stopped.set()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopped.is_set():
            job()


class Scheduler:
    """One thread that starts jobs when they are due; its workers run them."""

    def __init__(self, name: str, threads: int) -> None:
        self._workers = Workers(name, threads)
        self._heap: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"{name}-clock", daemon=True)

    def start(self) -> None:
        self._workers.start()
        self._thread.start()

    def after(self, seconds: float, job: Job) -> None:
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), job))
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        self._workers.stop()

    def _run(self) -> None:
        with self._changed:
            while not self._stopping:
                self._hand_out_due()
                self._changed.wait(self._seconds_to_next())

    def _hand_out_due(self) -> None:
        while self._heap and self._heap[0][0] <= time.monotonic():
            self._workers.do(heapq.heappop(self._heap)[2])

    def _seconds_to_next(self) -> float | None:
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None
