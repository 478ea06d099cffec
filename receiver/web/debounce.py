"""Runs a function on a background thread soon after it was scheduled, but not too often."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Timer


class Debouncer:
    """Calls `run` at most once per `interval` seconds, never concurrently, and at process exit."""

    def __init__(self, run: Callable[[], None], interval: float) -> None:
        self._run, self._interval = run, interval
        self._timer: Timer | None = None
        self._is_scheduled = False  # since the last run began
        self._lock = Lock()
        atexit.register(run)

    def schedule(self) -> None:
        """Have `run` called within `interval` seconds. Thread-safe; returns immediately."""
        if self._is_scheduled and self._timer:  # and that run has not begun
            return
        with self._lock:
            self._is_scheduled = True
            if self._timer is None:
                self._start()

    def close(self) -> None:
        """Cancel the run that is due, and the one at process exit."""
        atexit.unregister(self._run)
        timer = self._timer
        if timer is not None:
            timer.cancel()

    def _start(self) -> None:
        timer = Timer(self._interval, self._on_time)
        timer.daemon = True
        with suppress(RuntimeError):  # no thread can be started: the next call tries again
            timer.start()
            self._timer = timer

    def _on_time(self) -> None:
        with self._lock:
            self._is_scheduled = False
        try:
            self._run()
        finally:
            with self._lock:
                self._timer = None
                if self._is_scheduled:
                    self._start()
