"""The verbs' SQL as PostgreSQL takes it: its values, and locks that SQLite does not need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count
from typing import Any

import psycopg

from receiver.stores.sql.session import ALONE, Found, Values

_NAME = re.compile(r"(?<!:):([a-z_]+)")
_PLACE = re.compile(rf"\?|{_NAME.pattern}")
# Where a comment says so, the rows that are found are held until the transaction ends.
_LOCKS = {
    "/* lock tasks */": "for update of tasks",
    "/* lock */": "for update",
    "/* take */": "for update skip locked",
}
_ADVISORY = "select pg_advisory_xact_lock(hashtextextended(?, 0))"


class PostgresSession:
    """A connection, as `stores.sql.session.Session`.

    In a `pipeline` statements gather, and go to the server together with the first whose result is
    looked at, or with the commit: a round trip is paid for each look, not for each statement.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], pipeline: psycopg.Pipeline | None = None
    ) -> None:
        self._connection = connection
        self._pipeline = pipeline

    def execute(self, sql: str, values: Values = (), /) -> Found:
        cursor = self._connection.execute(translated(sql), values or None)
        return cursor if self._pipeline is None else _Gathered(cursor, self._pipeline)

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> object:
        with self._connection.cursor() as cursor:
            cursor.executemany(translated(sql), values)
        return None


class _Gathered:
    """The result of a statement that may not have been sent yet."""

    def __init__(self, cursor: psycopg.Cursor[Any], pipeline: psycopg.Pipeline) -> None:
        self._cursor = cursor
        self._pipeline = pipeline

    @property
    def rowcount(self) -> int:
        self._pipeline.sync()  # the cursor does not know it before
        return self._cursor.rowcount

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


@cache
def translated(sql: str) -> str:
    """The statement with psycopg's placeholders, and with its locks."""
    return _NAME.sub(r"%(\1)s", _with_locks(sql)).replace("?", "%s")


@cache
def numbered(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement as libpq takes it, with its locks; and the names of its values, in order."""
    names: list[str] = []
    numbers = count(1)

    def number(place: re.Match[str]) -> str:
        name = place[1]
        if name is None:
            return f"${next(numbers)}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PLACE.sub(number, _with_locks(sql)).encode(), tuple(names)


def _with_locks(sql: str) -> str:
    """The statement with the locks that its comments ask for."""
    if sql == ALONE:
        return _ADVISORY
    for comment, lock in _LOCKS.items():
        sql = sql.replace(comment, lock)
    return sql
