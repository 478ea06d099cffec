"""Holds back all creates of one account while its provider says "later"; other accounts go on."""

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
# A try-on holds its slot for about 20 s: with a few slots, one is free every few seconds. The
# first delay is 1 s at least, jitter included, as Kling wants it.
DELAYS = (1.2, 2.5, 5.0, 10.0)  # seconds; the last one stays
MAX_SECONDS = 600.0  # seconds in which the account took nothing


class SharedBackoff:
    """A Persistence that many threads share.

    Whoever is told to come later goes to the end of one queue, whose first alone tries again: so
    a free slot is asked for once and not by all.
    """

    def __init__(
        self,
        stop: threading.Event,
        delays: tuple[float, ...] = DELAYS,
        at_most: float = MAX_SECONDS,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stop = stop
        self._policy = RetryPolicy((*delays, delays[-1]))
        self._at_most = at_most
        self._chance = chance
        self._clock = clock
        self._turn = threading.Lock()
        self._opens_at = 0.0  # by the clock
        self._given_up = False

    def wait(self) -> None:
        """Sleep until the account may be asked, or everything is to stop."""
        while (left := self._opens_at - self._clock()) > 0 and not self._stop.wait(left):
            pass

    def persist(self, call: Callable[[], T]) -> T:
        """What `call` returns, once it is served.

        Raises the last TryLater when the account took nothing for long, and after a stop.
        """
        if self._opens_at <= self._clock():
            try:
                return call()
            except TryLater as later:
                self._hold(1, later, self._clock() + self._at_most)
        with self._turn:
            return self._insist(call)

    def _insist(self, call: Callable[[], T]) -> T:
        ends_at = self._clock() + self._at_most
        for attempt in itertools.count(1):
            self.wait()
            try:
                return call()
            except TryLater as later:
                self._hold(attempt, later, ends_at)
        raise AssertionError  # the loop has no end

    def _hold(self, attempt: int, later: TryLater, ends_at: float) -> None:
        """Close the gate for a while, or raise `later`."""
        step = min(attempt, self._policy.max_attempts - 1)
        delay = self._policy.delay(step, chance=self._chance(), retry_after=later.retry_after) or 0
        now = self._clock()
        self._given_up = self._given_up or now + delay > ends_at
        if self._given_up or self._stop.is_set():
            raise later
        self._opens_at = max(self._opens_at, now + delay)
