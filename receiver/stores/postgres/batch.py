"""Runs several pieces of work concurrently in one transaction, so that they share round trips.

Each piece runs in a greenlet until it reads a result. When all of them wait, their statements are
sent to the server together. Savepoints are impossible, because the pieces interleave, so an error
in one piece rolls all of them back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from greenlet import getcurrent, greenlet
from psycopg import pq

from receiver.errors import StoreUnavailable
from receiver.stores.postgres.session import LOCK_NAME, TRY_LOCK_NAME
from receiver.stores.postgres.wire import ConnectionLost, Statement, Wire
from receiver.stores.sql.database import Session, Values
from receiver.stores.sql.locks import LockedSql

# Two batches can deadlock, which PostgreSQL detects after 1 s. A batch that waits for this long is
# rolled back, and its pieces are repeated in separate transactions, which do not deadlock.
SET_LOCK_TIMEOUT = "set local lock_timeout = '500ms'"


def commit_together(
    wire: Wire, works: Sequence[Callable[[Session], Any]], before_commit: Callable[[], None]
) -> list[Any]:
    """Commit all pieces of work together, and return their results.

    No piece may change the rows of another one. `before_commit` is called when all statements have
    run and only the commit is left. Raises the exception of a piece, or psycopg.Error; then nothing
    was committed, and the connection is unusable. Raises StoreUnavailable if it is unknown whether
    the transaction was committed.
    """
    unsent = [Statement("begin"), Statement(SET_LOCK_TIMEOUT)]
    session = _BatchSession(wire, unsent)
    pieces = [greenlet(work) for work in works]
    results = [piece.switch(session) for piece in pieces]
    while not all(piece.dead for piece in pieces):
        wire.exchange(unsent)
        unsent.clear()
        results = [
            result if piece.dead else piece.switch()
            for piece, result in zip(pieces, results, strict=True)
        ]
    before_commit()
    _commit(wire, unsent)
    return results


def _commit(wire: Wire, unsent: list[Statement]) -> None:
    end = Statement("commit")
    try:
        wire.exchange([*unsent, end])
    except ConnectionLost as error:
        raise StoreUnavailable(f"the connection was lost during the commit: {error}") from error
    assert end.answer is not None  # noqa: S101 - it was exchanged
    if end.answer.command_status != b"COMMIT":
        raise psycopg.OperationalError(f"the server did not commit: {end.answer.command_status!r}")


class _BatchSession:
    """The session that all pieces of a batch share; it collects their statements."""

    def __init__(self, wire: Wire, unsent: list[Statement]) -> None:
        self._wire = wire
        self._unsent = unsent

    def execute(self, sql: str, values: Values = (), /) -> _PendingResult:
        statement = Statement(sql, values)
        self._unsent.append(statement)
        return _PendingResult(self._wire, statement)

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> object:
        for row in values:
            self._unsent.append(Statement(sql, row))
        return None

    def execute_locked(self, sql: LockedSql, values: Values = (), /) -> _PendingResult:
        return self.execute(sql.with_lock, values)

    def lock(self, sql: LockedSql, values: Values = (), /) -> None:
        self.execute(sql.with_lock, values)

    def lock_name(self, name: str, /) -> None:
        self.execute(LOCK_NAME, (name,))

    def try_lock_name(self, name: str, /) -> bool:
        return bool(self.execute(TRY_LOCK_NAME, (name,)).fetchone()["is_locked"])


class _PendingResult:
    """The result of a statement. Reading it waits for the answer of the server."""

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
            batch = getcurrent().parent
            assert batch is not None  # noqa: S101 - every piece has a parent
            batch.switch()
        return self._statement.answer
