"""When a failed delivery is tried again; pure."""

from __future__ import annotations

from dataclasses import dataclass

# Attempts lie 5 s, 30 s, 2 m, 10 m, 1 h, 3 h and 8 h apart: 8 attempts over about 12 hours.
DEFAULT_DELAYS = (5, 30, 120, 600, 3_600, 10_800, 28_800)
LONGEST_WAIT = 86_400  # seconds; no Retry-After may hold a delivery longer than a day


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait after each failed attempt, in seconds; after the last, the delivery dies."""

    delays: tuple[float, ...] = DEFAULT_DELAYS
    jitter: float = 0.1  # each delay is stretched or shortened by up to this share of it

    @property
    def max_attempts(self) -> int:
        return len(self.delays) + 1

    def delay(
        self, attempts: int, *, chance: float, retry_after: float | None, apart: bool = False
    ) -> float | None:
        """Seconds until the next attempt, or None when there is none.

        `attempts`: how many were made (≥ 1). `chance`: uniform in 0..1, passed in so that this
        stays pure. `retry_after`: what the other side asked for; it lengthens, never shortens.
        `apart`: stretch it up to twofold, so that what a worker held when it died does not meet
        again; one of them may have killed it.
        """
        if attempts >= self.max_attempts:
            return None
        stretch = 1 + chance if apart else 1 + self.jitter * (2 * chance - 1)
        planned = self.delays[attempts - 1] * stretch
        return min(max(planned, retry_after or 0), LONGEST_WAIT)
