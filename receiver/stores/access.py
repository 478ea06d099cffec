"""The contract for dashboard sessions, and for refused attempts that processes count together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

MOST_SESSIONS = 1_000  # open at the same time; a further one ends the oldest
SLOTS = 512  # of each kind of attempt, one sender in each


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many attempts of one kind a sender may make: `burst` at once, then `per_second`."""

    kind: str
    burst: int
    per_second: float

    def after(self, used: float, seconds: float) -> float:
        """What is left of `used` attempts after so many seconds; a step back of a clock is none."""
        return max(0.0, used - max(0.0, seconds) * self.per_second)


@dataclass(frozen=True, slots=True)
class Usage:
    """The attempts that one sender has used up at the instant `at` (milliseconds UTC)."""

    slot: int
    sender: str  # a digest of its network
    used: float
    at: int

    def moved_to(self, now: int, allowance: Allowance) -> Usage:
        """The same usage at another instant."""
        seconds = (now - self.at) / 1000
        return replace(self, used=allowance.after(self.used, seconds), at=now)

    def plus(self, more: Usage, allowance: Allowance) -> Usage:
        """Add the attempts of `more`, which are of the same instant.

        A slot has one sender. If the two differ, the one that used up more keeps the slot, so that
        neither is charged for the other. Processes that did not know of each other's attempts can
        exceed the burst together; what exceeds it twice is dropped.
        """
        if more.sender != self.sender:
            return more if more.used > self.used else self
        return replace(self, used=min(self.used + more.used, 2.0 * allowance.burst))


class Access(Protocol):
    """Sessions of the dashboard, and attempts that were refused. Both are bounded."""

    def open_session(self, digest: str, now: int, ends_at: int) -> None:
        """Store a session until it ends; delete sessions that have ended, and the oldest if there
        are more than MOST_SESSIONS.
        """
        ...

    def has_session(self, digest: str, now: int) -> bool:
        """Whether the session is open: it was not closed, and has not ended."""
        ...

    def close_session(self, digest: str) -> None:
        """End the session in all processes. Does nothing if it is not open."""
        ...

    def prune_sessions(self, now: int) -> None:
        """Delete sessions that have ended."""
        ...

    def add_refused_attempts(
        self, allowance: Allowance, found: Sequence[Usage], now: int
    ) -> list[Usage]:
        """Add these attempts to those of the other processes. Returns all of the kind, as of `now`.

        At most SLOTS of each kind are stored. Attempts that are given back again are deleted.
        """
        ...

    def refused_attempts(self, allowance: Allowance, now: int) -> list[Usage]:
        """All attempts of the kind that are not given back yet, as of `now`."""
        ...
