"""Applies the numbered SQL files of the schema with sqlite-utils, under the file lock."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.config import private_files
from receiver.errors import SchemaMismatch
from receiver.stores.releases import migrations, refuse_newer, refuse_older
from receiver.stores.sqlite.files import check_complete, file_lock
from receiver.stores.sqlite.readers import connect

if TYPE_CHECKING:
    from sqlite_utils import Database


def migrate(path: Path) -> list[str]:
    """Apply the missing migrations, and return their names.

    The file lock and BEGIN IMMEDIATE exclude other processes that migrate at the same time. Raises
    sqlite3.Error, OSError and SchemaMismatch.
    """
    with file_lock(path):
        check_complete(path)
        private_files.create_file(path)  # SQLite gives -wal and -shm the mode of the database
        for file in private_files.database_files(path):
            private_files.close_to_others(file)
        connection = connect(path, read_only=False)
        try:
            # The first page that is written decides both, so a migration cannot set them.
            connection.execute("pragma auto_vacuum = incremental")
            connection.execute("pragma journal_mode = wal")
            return _apply(connection, path)
        finally:
            connection.close()


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise SchemaMismatch if this release cannot use the database."""
    applied, known = _applied(connection), [name for name, _ in _files()]
    refuse_newer(str(path), applied, known)
    refuse_older(str(path), applied, known)
    # A restored backup, for example, may not be in WAL mode.
    if connection.execute("pragma journal_mode").fetchone()[0] != "wal":
        raise SchemaMismatch(f"{path} is not in WAL mode; run: receiver migrate")


def _apply(connection: sqlite3.Connection, path: Path) -> list[str]:
    from sqlite_utils import Database, Migrations  # noqa: PLC0415 - only migrations need it

    known = Migrations("callback-receiver")
    for name, sql in _files():
        known(name=name)(_migration(sql))
    refuse_newer(str(path), _applied(connection), [name for name, _ in _files()])
    database = Database(connection)
    connection.execute("begin immediate")
    names = [migration.name for migration in known.pending(database)]
    known.apply(database)
    connection.execute("commit")
    return names


class _migration:  # noqa: N801 - used as a function by sqlite-utils
    """Executes one SQL file, without `executescript`, which would commit first."""

    def __init__(self, sql: str) -> None:
        self.__name__ = "sql"
        self._sql = sql

    def __call__(self, db: Database, /) -> None:
        statement = ""
        for line in self._sql.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                db.conn.execute(statement)
                statement = ""


def _files() -> list[tuple[str, str]]:
    return migrations("sqlite")


def _applied(connection: sqlite3.Connection) -> list[str]:
    try:
        found = connection.execute(
            "select name from _sqlite_migrations where migration_set = 'callback-receiver'"
        ).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []
        raise
    return [row[0] for row in found]
