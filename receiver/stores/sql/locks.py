"""The row locks that a statement takes, as values.

SQLite has one writer at a time, so it needs no row locks. PostgreSQL locks the rows that the
statement selects until the transaction ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

PLACE = "{lock}"


class Lock(Enum):
    """The rows that a statement locks, and its handling of rows that are already locked."""

    ROWS = "for update"  # every row selected; waits for rows that another transaction holds
    TASKS = "for update of tasks"  # the rows of `tasks`, and in a join no others; waits likewise
    SKIP_LOCKED = "for update skip locked"  # every row selected, except those that others hold


@dataclass(frozen=True, slots=True)
class LockedSql:
    """A statement that takes a row lock, rendered for both kinds of database.

    It is not a `str`, so `Session.execute` does not accept it, and no lock is lost by accident.
    """

    with_lock: str
    without_lock: str


def locked(sql: str, lock: Lock) -> LockedSql:
    """Return the statement with this lock. Call this once, at import, not for each execution.

    The lock is appended to the statement, or replaces `{lock}` if the rows are selected inside
    a longer statement. Raises TypeError for anything that is not a `Lock`.
    """
    if not isinstance(lock, Lock):
        raise TypeError(f"{lock!r} is not a lock; use a member of Lock")
    before, place, after = sql.partition(PLACE)
    if PLACE in after:
        raise ValueError(f"{PLACE} occurs more than once in: {sql}")
    if not place:
        before = f"{before.rstrip()} "
    return LockedSql(f"{before}{lock.value}{after}", f"{before}{after}")


LOCK_TASK = locked("select seq from tasks where id = ?", Lock.TASKS)
