"""A deadline that restarts whenever there is progress, so that a slow machine gets enough time."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable

POLLED_EVERY = 0.1  # seconds
REMEDY = (
    "If this machine is just slow, allow more time: set DEMO_PROGRESS_WITHIN=SECONDS,"
    " or pass --progress-within SECONDS"
)


class StepError(Exception):
    """A step of the demo failed, or did not happen."""


class ProgressDeadline:
    """A deadline that passes when no new fact was noted for `seconds`. The total time is unlimited.

    `clock` returns seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._seen: set[Hashable] = set()
        self._restarted_at = clock()

    @property
    def passed(self) -> bool:
        return self._clock() - self._restarted_at >= self.seconds

    def restart(self) -> None:
        self._restarted_at = self._clock()

    def note(self, facts: Iterable[Hashable]) -> None:
        """Restart the deadline if one of these facts is new. A repeated fact is not progress."""
        new = set(facts) - self._seen
        if new:
            self._seen |= new
            self.restart()

    def wait_until(self, condition: Callable[[], bool], missing: Callable[[], str]) -> None:
        """Return as soon as the condition is true.

        Raise StepError, which names the missing steps, when the deadline passes. The condition
        has to call `note` for the progress that it sees.
        """
        while not condition():
            if self.passed:
                raise StepError(
                    f"nothing new happened for {self.seconds:g} s while waiting for {missing()}\n"
                    f"{REMEDY}"
                )
            time.sleep(POLLED_EVERY)
