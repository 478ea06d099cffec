"""Several pieces of work in one transaction, side by side: they share every round trip.

Each runs in a greenlet until it looks at an answer. Once all of them wait, what they asked goes to
the server together. They have no savepoints, since those nest and these interleave: if one fails,
all are undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from greenlet import getcurrent, greenlet

from receiver.errors import StoreUnavailable
from receiver.stores.postgres.wire import Lost, Statement, Wire
from receiver.stores.sql.session import Session, Values

# A transaction that waits longer for another's rows may stand in a ring of such: PostgreSQL looks
# after 1 s. Who is undone by this is done alone, where there are no rings.
LOCKED_FOR_AT_MOST = "set local lock_timeout = '500ms'"


def commit_together(wire: Wire, works: Sequence[Callable[[Session], Any]]) -> list[Any]:
    """Do all of them in one transaction; what each returned. They must not touch the same rows.

    Raises what one of them raised, or psycopg.Error: then nothing was done, and the connection is
    in a transaction that failed. Raises StoreUnavailable if nobody knows whether it was done.
    """
    asked = [Statement("begin"), Statement(LOCKED_FOR_AT_MOST)]
    session = _Shared(wire, asked)
    running = [greenlet(work) for work in works]
    results = [each.switch(session) for each in running]
    while not all(each.dead for each in running):
        wire.exchange(asked)
        asked.clear()
        for number, each in enumerate(running):
            if not each.dead:
                results[number] = each.switch()
    _commit(wire, asked)
    return results


def _commit(wire: Wire, asked: list[Statement]) -> None:
    end = Statement("commit")
    try:
        wire.exchange([*asked, end])
    except Lost as error:
        raise StoreUnavailable(f"lost the database while it committed: {error}") from error
    assert end.answer is not None  # noqa: S101 - it was exchanged
    if end.answer.command_status != b"COMMIT":
        raise psycopg.OperationalError(f"the database did not commit: {end.answer.command_status!r}")


class _Shared:
    """The session of all works of a batch."""

    def __init__(self, wire: Wire, asked: list[Statement]) -> None:
        self._wire = wire
        self._asked = asked

    def execute(self, sql: str, values: Values = (), /) -> _Awaited:
        statement = Statement(sql, values)
        self._asked.append(statement)
        return _Awaited(self._wire, statement)

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> object:
        for each in values:
            self.execute(sql, each)
        return None


class _Awaited:
    """The answer to a statement, waited for when it is looked at."""

    def __init__(self, wire: Wire, statement: Statement) -> None:
        self._wire = wire
        self._statement = statement
        self._rows: list[Any] | None = None
        self._read = 0

    @property
    def rowcount(self) -> int:
        return self._answer().command_tuples or 0

    def fetchone(self) -> Any:
        rows = self.fetchall()
        return rows[0] if rows else None

    def fetchall(self) -> list[Any]:
        self._answer()
        return self._wire.rows(self._statement)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def _answer(self) -> Any:
        while self._statement.answer is None:
            getcurrent().parent.switch()
        return self._statement.answer
