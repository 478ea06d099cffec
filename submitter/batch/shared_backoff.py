"""Pauses all creates of one account while its provider rejects them for now.

Other accounts are unaffected.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from receiver.outgoing.retry import RetryPolicy
from submitter.errors import TryLater

T = TypeVar("T")
# A try-on occupies a slot of the account for about 20 s, so one of a few slots becomes free every
# few seconds. Kling requires a first delay of at least 1 s, whatever the jitter.
DELAYS = (1.2, 2.5, 5.0, 10.0)  # seconds; the last one is repeated
MAX_SECONDS = 600.0  # without an accepted create; then all of them fail


class SharedBackoff:
    """A Persistence that the threads of one account share.

    Rejected creates queue up, and only the first of them is retried, so that one request, not one
    per thread, finds out whether a slot is free.
    """

    def __init__(
        self,
        stop: threading.Event,
        delays: tuple[float, ...] = DELAYS,
        max_seconds: float = MAX_SECONDS,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stop = stop
        self._policy = RetryPolicy((*delays, delays[-1]))
        self._max_seconds = max_seconds
        self._chance = chance
        self._clock = clock
        self._first_in_queue = threading.Lock()
        self._paused_until = 0.0  # on the clock
        self._has_given_up = False

    def wait(self) -> None:
        """Wait until the pause of the account ends, or until everything is to stop."""
        while (left := self._paused_until - self._clock()) > 0 and not self._stop.wait(left):
            pass

    def persist(self, call: Callable[[], T]) -> T:
        """Call until it succeeds, and return the result.

        Raises the last TryLater after a stop, or if the account has accepted nothing for too long.
        """
        if self._paused_until <= self._clock():
            try:
                return call()
            except TryLater as error:
                self._pause(1, error, self._clock() + self._max_seconds)
        with self._first_in_queue:
            return self._retry(call)

    def _retry(self, call: Callable[[], T]) -> T:
        ends_at = self._clock() + self._max_seconds
        for attempt in itertools.count(1):
            self.wait()
            try:
                return call()
            except TryLater as error:
                self._pause(attempt, error, ends_at)
        raise AssertionError  # unreachable: the loop is infinite

    def _pause(self, attempt: int, error: TryLater, ends_at: float) -> None:
        """Pause the account, or raise the error if the pause would exceed the limit."""
        step = min(attempt, self._policy.max_attempts - 1)
        delay = self._policy.delay(step, chance=self._chance(), retry_after=error.retry_after) or 0
        now = self._clock()
        self._has_given_up = self._has_given_up or now + delay > ends_at
        if self._has_given_up or self._stop.is_set():
            raise error
        self._paused_until = max(self._paused_until, now + delay)
