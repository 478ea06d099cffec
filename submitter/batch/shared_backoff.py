"""Pauses all create requests of one account while its provider rejects them temporarily.

Other accounts are unaffected.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from receiver.outgoing.retry import RetryPolicy
from submitter.errors import TryLater

T = TypeVar("T")
# A try-on occupies a slot of the account for about 20 s, so one of a few slots becomes free every
# few seconds. Kling requires a first delay of at least 1 s, whatever the jitter.
DELAYS = (1.2, 2.5, 5.0, 10.0)  # seconds; the last one is repeated
MAX_SECONDS = 600.0  # seconds without an accepted create request, after which all of them fail


@dataclass
class SharedBackoff:
    """A Persistence that the threads of one account share.

    Rejected creates queue up, and only the first of them is retried, so that one request, not one
    per thread, checks whether a slot is free.
    """

    stop: threading.Event
    delays: tuple[float, ...] = DELAYS
    max_seconds: float = MAX_SECONDS
    chance: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    _first_in_queue: threading.Lock = field(default_factory=threading.Lock)
    _paused_until: float = 0.0  # on the clock
    _has_given_up: bool = False

    def wait(self) -> None:
        """Wait until the pause of the account ends, or until the batch is stopped."""
        while (left := self._paused_until - self.clock()) > 0 and not self.stop.wait(left):
            pass

    def persist(self, call: Callable[[], T]) -> T:
        """Call until it succeeds, and return the result.

        Raises the last TryLater after a stop, or if the account has accepted nothing for too long.
        """
        if self._paused_until <= self.clock():
            try:
                return call()
            except TryLater as error:
                self._pause(1, error, self.clock() + self.max_seconds)
        with self._first_in_queue:
            ends_at = self.clock() + self.max_seconds
            for attempt in itertools.count(1):
                self.wait()
                try:
                    return call()
                except TryLater as error:
                    self._pause(attempt, error, ends_at)
        raise AssertionError  # unreachable: the loop is infinite

    def _pause(self, attempt: int, error: TryLater, ends_at: float) -> None:
        """Pause the account, or raise the error if the pause would exceed the limit."""
        policy = RetryPolicy((*self.delays, self.delays[-1]))
        step = min(attempt, policy.max_attempts - 1)
        delay = policy.delay(step, chance=self.chance(), retry_after=error.retry_after) or 0
        now = self.clock()
        self._has_given_up = self._has_given_up or now + delay > ends_at
        if self._has_given_up or self.stop.is_set():
            raise error
        self._paused_until = max(self._paused_until, now + delay)
