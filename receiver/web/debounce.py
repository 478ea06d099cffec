"""Runs something soon after it was asked for, on a thread of its own: nobody waits for it."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Timer


class Debouncer:
    """Calls `run` at most every so many seconds, never twice at once, and at the process's end."""

    def __init__(self, run: Callable[[], None], every: float) -> None:
        self._run, self._every = run, every
        self._timer: Timer | None = None
        self._is_asked = False  # since the last run began
        self._lock = Lock()
        atexit.register(run)

    def ask(self) -> None:
        """Have it run within `every` seconds."""
        if self._is_asked and self._timer:  # and that run has not begun
            return
        with self._lock:
            self._is_asked = True
            if self._timer is None:
                self._start()

    def close(self) -> None:
        """Cancel the run that is due, and the one at the process's end."""
        atexit.unregister(self._run)
        timer = self._timer
        if timer is not None:
            timer.cancel()

    def _start(self) -> None:
        timer = Timer(self._every, self._on_time)
        timer.daemon = True
        with suppress(RuntimeError):  # no thread can be started now: whoever asks next tries again
            timer.start()
            self._timer = timer

    def _on_time(self) -> None:
        with self._lock:
            self._is_asked = False
        try:
            self._run()
        finally:
            with self._lock:
                self._timer = None
                if self._is_asked:
                    self._start()
