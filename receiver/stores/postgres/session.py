"""The PostgreSQL connection that components use: translates placeholders, and locks rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count
from typing import Any

import psycopg

from receiver.stores.sql.database import QueryResult, Values, storable_values
from receiver.stores.sql.locks import LockedSql

_NAME = re.compile(r"(?<!:):([a-z_]+)")
_PLACE = re.compile(rf"\?|{_NAME.pattern}")
REFUSED = (UnicodeEncodeError, psycopg.DataError)  # lone surrogates, and NUL
LOCK_NAME = "select pg_advisory_xact_lock(hashtextextended(?, 0))"
TRY_LOCK_NAME = "select pg_try_advisory_xact_lock(hashtextextended(?, 0)) as is_locked"


class PostgresSession:
    """A connection; see `stores.sql.database.Session`.

    In a `pipeline`, statements are collected. They are sent to the server when a result is read, or
    with the commit, so there is one round trip for each read instead of each statement.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], pipeline: psycopg.Pipeline | None = None
    ) -> None:
        self._connection = connection
        self._pipeline = pipeline

    def execute(self, sql: str, values: Values = (), /) -> QueryResult:
        cursor = self._connection.execute(translated(sql), values or None)
        return cursor if self._pipeline is None else _PipelinedResult(cursor, self._pipeline)

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> object:
        with self._connection.cursor() as cursor:
            cursor.executemany(translated(sql), values)
        return None

    def execute_locked(self, sql: LockedSql, values: Values = (), /) -> QueryResult:
        return self.execute(sql.with_lock, values)

    def lock(self, sql: LockedSql, values: Values = (), /) -> None:
        self.execute(sql.with_lock, values)

    def lock_name(self, name: str, /) -> None:
        self.execute(LOCK_NAME, (name,))

    def try_lock_name(self, name: str, /) -> bool:
        return bool(self.execute(TRY_LOCK_NAME, (name,)).fetchone()["is_locked"])


class PostgresReadingSession(PostgresSession):
    """A read-only connection, which searches for unstorable text in the form that is stored."""

    def execute(self, sql: str, values: Values = (), /) -> QueryResult:
        try:
            return super().execute(sql, values)
        except REFUSED:  # raised by psycopg before it sends the statement
            if (clean := storable_values(values)) == values:
                raise
            return super().execute(sql, clean)


class _PipelinedResult:
    """The result of a statement that may not have been sent yet."""

    def __init__(self, cursor: psycopg.Cursor[Any], pipeline: psycopg.Pipeline) -> None:
        self._cursor = cursor
        self._pipeline = pipeline

    @property
    def rowcount(self) -> int:
        self._pipeline.sync()  # the cursor does not know the number earlier
        return self._cursor.rowcount

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


@cache
def translated(sql: str) -> str:
    """Return the statement with psycopg's placeholders."""
    return _NAME.sub(r"%(\1)s", sql).replace("?", "%s")


@cache
def numbered(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """Return the statement with libpq's placeholders, and the names of its values in order."""
    names: list[str] = []
    numbers = count(1)

    def number(place: re.Match[str]) -> str:
        name = place[1]
        if name is None:
            return f"${next(numbers)}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PLACE.sub(number, sql).encode(), tuple(names)
