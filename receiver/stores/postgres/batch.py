"""Several pieces of work in one transaction, side by side, so that they share each round trip.

A piece runs in a greenlet until it looks at an answer. Once all of them wait, what they asked goes
to the server together. There are no savepoints: those nest, and these pieces interleave. If one
fails, all are undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from greenlet import getcurrent, greenlet
from psycopg import pq

from receiver.errors import StoreUnavailable
from receiver.stores.postgres.session import LOCK_NAME
from receiver.stores.postgres.wire import ConnectionLost, Statement, Wire
from receiver.stores.sql.database import Session, Values
from receiver.stores.sql.locks import LockedSql

# Two batches may hold what the other waits for. PostgreSQL looks for such rings after 1 s; a batch
# that waits for so long is undone, and its pieces, each alone, make no ring.
LOCKED_FOR_AT_MOST = "set local lock_timeout = '500ms'"


def commit_together(
    wire: Wire, works: Sequence[Callable[[Session], Any]], before_commit: Callable[[], None]
) -> list[Any]:
    """What each returned, once all are committed; none may touch the rows of another.

    `before_commit` is called when there is nothing left to do but to wait for the commit.

    Raises what one of them raised, or psycopg.Error: nothing was committed, and the connection is
    of no more use. Raises StoreUnavailable if nobody knows whether it was.
    """
    asked = [Statement("begin"), Statement(LOCKED_FOR_AT_MOST)]
    session = _BatchSession(wire, asked)
    running = [greenlet(work) for work in works]
    results = [each.switch(session) for each in running]
    while not all(each.dead for each in running):
        wire.exchange(asked)
        asked.clear()
        results = [
            result if each.dead else each.switch()
            for each, result in zip(running, results, strict=True)
        ]
    before_commit()
    _commit(wire, asked)
    return results


def _commit(wire: Wire, asked: list[Statement]) -> None:
    end = Statement("commit")
    try:
        wire.exchange([*asked, end])
    except ConnectionLost as error:
        raise StoreUnavailable(f"lost while it committed: {error}") from error
    assert end.answer is not None  # noqa: S101 - it was exchanged
    if end.answer.command_status != b"COMMIT":
        raise psycopg.OperationalError(f"it did not commit: {end.answer.command_status!r}")


class _BatchSession:
    """The session of all pieces of a batch: what they ask gathers."""

    def __init__(self, wire: Wire, asked: list[Statement]) -> None:
        self._wire = wire
        self._asked = asked

    def execute(self, sql: str, values: Values = (), /) -> _PendingResult:
        statement = Statement(sql, values)
        self._asked.append(statement)
        return _PendingResult(self._wire, statement)

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> object:
        for each in values:
            self._asked.append(Statement(sql, each))
        return None

    def execute_locked(self, sql: LockedSql, values: Values = (), /) -> _PendingResult:
        return self.execute(sql.with_lock, values)

    def lock(self, sql: LockedSql, values: Values = (), /) -> None:
        self.execute(sql.with_lock, values)

    def lock_name(self, name: str, /) -> None:
        self.execute(LOCK_NAME, (name,))


class _PendingResult:
    """What a statement gave: who looks at it waits for it."""

    def __init__(self, wire: Wire, statement: Statement) -> None:
        self._wire = wire
        self._statement = statement
        self._rows: Iterator[Any] | None = None

    @property
    def rowcount(self) -> int:
        return self._answer().command_tuples or 0

    def fetchone(self) -> Any:
        return next(iter(self), None)

    def fetchall(self) -> list[Any]:
        return list(self)

    def __iter__(self) -> Iterator[Any]:
        if self._rows is None:
            self._rows = iter(self._wire.rows(self._answer()))
        return self._rows

    def _answer(self) -> pq.abc.PGresult:
        while self._statement.answer is None:
            others = getcurrent().parent
            assert others is not None  # noqa: S101 - every piece has one
            others.switch()
        return self._statement.answer
