"""The SQLite connection that components use. With one writer, it needs no locks."""

from __future__ import annotations

import sqlite3

from receiver.stores.sql.database import Values
from receiver.stores.sql.locks import LockedSql


class SqliteSession(sqlite3.Connection):
    """A connection; see `stores.sql.database.Session`."""

    def execute_locked(self, sql: LockedSql, values: Values = (), /) -> sqlite3.Cursor:
        return self.execute(sql.without_lock, values)

    def lock(self, sql: LockedSql, values: Values = (), /) -> None:
        """Do nothing: no other transaction writes until this one ends."""

    def lock_name(self, name: str, /) -> None:
        """Do nothing: no other transaction writes until this one ends."""

    def try_lock_name(self, name: str, /) -> bool:  # noqa: ARG002 - see above
        return True
