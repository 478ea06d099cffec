"""Dashboard sessions, and refused attempts that all processes count together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from receiver.stores.sql.database import Component, Session

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


class DashboardSessions(Component):
    """Sessions of the dashboard, and refused attempts. Both are bounded."""

    def open(self, digest: str, now: int, ends_at: int) -> None:
        """Store a session until it ends; delete sessions that have ended, and the oldest if there
        are more than MOST_SESSIONS.
        """

        def work(session: Session) -> None:
            session.execute(_OPEN, (digest, now, ends_at))
            session.execute(_DELETE_ENDED, (now,))
            session.execute(_DELETE_OLDEST, (MOST_SESSIONS,))

        self._database.write(work)

    def is_open(self, digest: str, now: int) -> bool:
        """Whether the session is open: it was not closed, and has not ended."""
        with self._database.reading() as session:
            return session.execute(_IS_OPEN, (digest, now)).fetchone() is not None

    def close(self, digest: str) -> None:
        """End the session in all processes. Does nothing if it is not open."""
        self._database.write(lambda session: session.execute(_CLOSE, (digest,)))

    def prune(self, now: int) -> None:
        """Delete sessions that have ended."""
        self._database.write(lambda session: session.execute(_DELETE_ENDED, (now,)))

    def add_refused_attempts(
        self, allowance: Allowance, found: Sequence[Usage], now: int
    ) -> list[Usage]:
        """Add these attempts to those of the other processes. Returns all of the kind, as of `now`.

        At most SLOTS of each kind are stored. Attempts that are given back again are deleted.
        """

        def work(session: Session) -> list[Usage]:
            session.lock_name(f"attempts {allowance.kind}")
            held = {one.slot: one for one in _attempts(session, allowance, now)}
            for one in found:
                before = held.get(one.slot)
                held[one.slot] = one if before is None else before.plus(one, allowance)
            changed = [held[slot] for slot in sorted({one.slot for one in found})]
            session.executemany(
                _PUT, [(allowance.kind, one.slot, one.sender, one.used, one.at) for one in changed]
            )
            left = [one for one in held.values() if one.used > 0]
            given_back = held.keys() - {one.slot for one in left}
            session.executemany(_DELETE, [(allowance.kind, slot) for slot in sorted(given_back)])
            return left

        return self._database.write(work)

    def refused_attempts(self, allowance: Allowance, now: int) -> list[Usage]:
        """All attempts of the kind that are not given back yet, as of `now`."""
        with self._database.reading() as session:
            found = _attempts(session, allowance, now)
        return [one for one in found if one.used > 0]


def _attempts(session: Session, allowance: Allowance, now: int) -> list[Usage]:
    found = session.execute(_ATTEMPTS, (allowance.kind,)).fetchall()
    stored = (Usage(row["slot"], row["sender"], row["used"], row["at"]) for row in found)
    return [one.moved_to(now, allowance) for one in stored]


_OPEN = "insert into sessions (digest, opened_at, ends_at) values (?, ?, ?)"

_IS_OPEN = "select 1 from sessions where digest = ? and ends_at > ?"

_CLOSE = "delete from sessions where digest = ?"

_DELETE_ENDED = "delete from sessions where ends_at <= ?"

_DELETE_OLDEST = """
delete from sessions where digest not in (
  select digest from sessions order by opened_at desc, digest limit ?
)
"""

_ATTEMPTS = "select slot, sender, used, at from refused_attempts where kind = ? order by slot"

_PUT = """
insert into refused_attempts (kind, slot, sender, used, at) values (?, ?, ?, ?, ?)
on conflict (kind, slot) do update set
  sender = excluded.sender, used = excluded.used, at = excluded.at
"""

_DELETE = "delete from refused_attempts where kind = ? and slot = ?"
