"""Dashboard sessions, and refused attempts that all processes count together."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.stores.access import MOST_SESSIONS, Allowance, Usage
from receiver.stores.sql.session import Session, SqlStoreBase


class Access(SqlStoreBase):
    """See `stores.access.Access`."""

    def open_session(self, digest: str, now: int, ends_at: int) -> None:
        def work(connection: Session) -> None:
            connection.execute(_OPEN, (digest, now, ends_at))
            connection.execute(_DELETE_ENDED, (now,))
            connection.execute(_DELETE_OLDEST, (MOST_SESSIONS,))

        self._write(work)

    def has_session(self, digest: str, now: int) -> bool:
        with self.reading() as connection:
            return connection.execute(_IS_OPEN, (digest, now)).fetchone() is not None

    def close_session(self, digest: str) -> None:
        self._write(lambda connection: connection.execute(_CLOSE, (digest,)))

    def prune_sessions(self, now: int) -> None:
        self._write(lambda connection: connection.execute(_DELETE_ENDED, (now,)))

    def add_refused_attempts(
        self, allowance: Allowance, found: Sequence[Usage], now: int
    ) -> list[Usage]:
        def work(connection: Session) -> list[Usage]:
            connection.lock_name(f"attempts {allowance.kind}")
            held = {one.slot: one for one in _attempts(connection, allowance, now)}
            for one in found:
                before = held.get(one.slot)
                held[one.slot] = one if before is None else before.plus(one, allowance)
            changed = [held[slot] for slot in sorted({one.slot for one in found})]
            connection.executemany(
                _PUT, [(allowance.kind, one.slot, one.sender, one.used, one.at) for one in changed]
            )
            left = [one for one in held.values() if one.used > 0]
            given_back = held.keys() - {one.slot for one in left}
            connection.executemany(_DELETE, [(allowance.kind, slot) for slot in sorted(given_back)])
            return left

        return self._write(work)

    def refused_attempts(self, allowance: Allowance, now: int) -> list[Usage]:
        with self.reading() as connection:
            found = _attempts(connection, allowance, now)
        return [one for one in found if one.used > 0]


def _attempts(connection: Session, allowance: Allowance, now: int) -> list[Usage]:
    found = connection.execute(_ATTEMPTS, (allowance.kind,)).fetchall()
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
