"""Runs a function on a background thread soon after it was scheduled, but not too often."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from threading import Lock, Timer


class Debouncer:
    """Calls `run` at most once per `interval` seconds, never concurrently, and at process exit."""

    def __init__(self, run: Callable[[], None], interval: float) -> None:
        self._run, self._interval = run, interval
        self._timer: Timer | None = None
        self.is_scheduled = False  # a run is due, and has not begun
        self._lock = Lock()
        atexit.register(run)

    def schedule(self) -> None:
        """Have `run` called within `interval` seconds. Thread-safe; returns immediately."""
        if self.is_scheduled:
            return
        with self._lock:  # while `run` is executing, `_on_time` starts the next timer
            self.is_scheduled = self._timer is not None or self._start()

    def close(self) -> None:
        """Cancel the run that is due, and the one at process exit."""
        atexit.unregister(self._run)
        timer = self._timer
        if timer is not None:
            timer.cancel()

    def _start(self) -> bool:
        """Start the timer. Returns False if no thread can be started; the next call tries again."""
        timer = Timer(self._interval, self._on_time)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            return False
        self._timer = timer
        return True

    def _on_time(self) -> None:
        with self._lock:
            self.is_scheduled = False
        try:
            self._run()
        finally:
            with self._lock:
                self._timer = None
                self.is_scheduled = self.is_scheduled and self._start()
