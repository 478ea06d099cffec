"""The verbs' SQL as PostgreSQL takes it: its values, and locks that SQLite does not need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import psycopg

from receiver.stores.sql.session import ALONE, Found, Values

_NAME = re.compile(r"(?<!:):([a-z_]+)")
# Where a comment says so, the rows that are found are held until the transaction ends.
_LOCKS = {
    "/* lock tasks */": "for update of tasks",
    "/* lock */": "for update",
    "/* take */": "for update skip locked",
}
_ADVISORY = "select pg_advisory_xact_lock(hashtextextended(%s, 0))"


class PostgresSession:
    """A connection, as `stores.sql.session.Session`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Values = (), /) -> Found:
        return self._connection.execute(translated(sql), values or None)

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> object:
        with self._connection.cursor() as cursor:
            cursor.executemany(translated(sql), values)
        return None


@cache
def translated(sql: str) -> str:
    """The statement with psycopg's placeholders, and with its locks."""
    if sql == ALONE:
        return _ADVISORY
    for comment, lock in _LOCKS.items():
        sql = sql.replace(comment, lock)
    return _NAME.sub(r"%(\1)s", sql).replace("?", "%s")
