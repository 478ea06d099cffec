"""Decides when a failed attempt is repeated; pure."""

from __future__ import annotations

from dataclasses import dataclass

# 5 s, 30 s, 2 min, 10 min, 1 h, 3 h and 8 h: 8 attempts over about 12 hours.
DEFAULT_DELAYS = (5, 30, 120, 600, 3_600, 10_800, 28_800)
LONGEST_WAIT = 86_400  # seconds; a longer Retry-After is shortened to this


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The delays after each failed attempt, in seconds; after the last, there is no retry."""

    delays: tuple[float, ...] = DEFAULT_DELAYS
    jitter: float = 0.1  # each delay is lengthened or shortened by up to this fraction

    @classmethod
    def lasting(cls, seconds: float) -> RetryPolicy:
        """Return a policy with the default delays, the last one repeated, up to this total."""
        delays: list[float] = []
        while (left := seconds - sum(delays)) > 0:
            usual = DEFAULT_DELAYS[min(len(delays), len(DEFAULT_DELAYS) - 1)]
            delays.append(min(usual, left))
        return cls(tuple(delays))

    @property
    def max_attempts(self) -> int:
        return len(self.delays) + 1

    def delay(
        self, attempts: int, *, chance: float, retry_after: float | None, apart: bool = False
    ) -> float | None:
        """Return the seconds until the next attempt, or None if there is none.

        `attempts`: attempts so far (≥ 1). `chance`: a random number in 0..1. `retry_after`: the
        delay that the endpoint requested; it can only lengthen the delay. `apart`: lengthen the
        delay up to twofold, so that the deliveries of a worker that died do not run together
        again, because one of them may have killed it.
        """
        if attempts >= self.max_attempts:
            return None
        stretch = 1 + chance if apart else 1 + self.jitter * (2 * chance - 1)
        planned = self.delays[attempts - 1] * stretch
        return min(max(planned, retry_after or 0), LONGEST_WAIT)
