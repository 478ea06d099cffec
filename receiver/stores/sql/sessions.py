"""Dashboard sessions, and the refused attempts of all processes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.rows import from_row

MOST_SESSIONS = 1_000  # open at the same time; a further one ends the oldest

SLOTS = 512  # for each kind of attempt, with one sender in each


@dataclass(frozen=True, slots=True)
class Allowance:
    """The attempts of one kind that a sender may make: a `burst`, then `per_second`."""

    kind: str
    burst: int
    per_second: float

    def after(self, used: float, seconds: float) -> float:
        """Return the used attempts after this time; a negative time, of a clock set back, is 0."""
        return max(0.0, used - max(0.0, seconds) * self.per_second)


@dataclass(frozen=True, slots=True)
class Usage:
    """The attempts that one sender has used up at the time `at` (milliseconds UTC)."""

    slot: int
    sender: str  # a digest of its network
    used: float
    at: int

    def moved_to(self, now: int, allowance: Allowance) -> Usage:
        """Return the same usage at another time."""
        seconds = (now - self.at) / 1000
        return replace(self, used=allowance.after(self.used, seconds), at=now)

    def plus(self, more: Usage, allowance: Allowance) -> Usage:
        """Return this usage with the attempts of `more`, at the same time.

        A slot has one sender. If the senders differ, the one that used up more keeps the slot, so
        that no attempts are added to the wrong sender. Several processes can exceed the burst
        together; the sum is limited to twice the burst.
        """
        if more.sender != self.sender:
            return more if more.used > self.used else self
        return replace(self, used=min(self.used + more.used, 2.0 * allowance.burst))


class DashboardSessions(Component):
    """Stores sessions of the dashboard, and refused attempts; the number of both is limited."""

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
        """Return whether the session was neither closed nor has expired."""
        return self._row(_IS_OPEN, (digest, now)) is not None

    def close(self, digest: str) -> None:
        """End the session in all processes. Does nothing if it is not open."""
        self._database.write(lambda session: session.execute(_CLOSE, (digest,)))

    def prune(self, now: int) -> None:
        """Delete expired sessions."""
        self._database.write(lambda session: session.execute(_DELETE_ENDED, (now,)))

    def add_refused_attempts(
        self, allowance: Allowance, found: Sequence[Usage], now: int
    ) -> list[Usage]:
        """Add attempts to those of the other processes; return all of this kind, as of `now`.

        At most SLOTS senders of each kind are stored. Attempts that no longer count are deleted.
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
            expired = held.keys() - {one.slot for one in left}
            session.executemany(_DELETE, [(allowance.kind, slot) for slot in sorted(expired)])
            return left

        return self._database.write(work)

    def refused_attempts(self, allowance: Allowance, now: int) -> list[Usage]:
        """Return all attempts of this kind that still count, as of `now`."""
        with self._database.reading() as session:
            found = _attempts(session, allowance, now)
        return [one for one in found if one.used > 0]


def _attempts(session: Session, allowance: Allowance, now: int) -> list[Usage]:
    found = session.execute(_ATTEMPTS, (allowance.kind,)).fetchall()
    return [from_row(Usage, row).moved_to(now, allowance) for row in found]


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
