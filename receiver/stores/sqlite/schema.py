"""The SQLite schema: numbered SQL files, applied by sqlite-utils under the file lock."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

from sqlite_utils import Database, Migrations

from receiver.errors import SchemaMismatch
from receiver.stores.sqlite.writer import connect, file_lock

# How many migrations behind this code a database may be and still be served. The tables of 0002 are
# used by every attempt at a delivery: without them nothing works.
RELEASES_SERVED = 0


def migrate(path: Path) -> list[str]:
    """Apply what is missing; the names applied. Raises sqlite3.Error, OSError, SchemaMismatch.

    The file lock and BEGIN IMMEDIATE keep two releases that start at once from racing.
    """
    with file_lock(path):
        connection = connect(path, read_only=False)
        try:
            # Both are decided by the first page written: they cannot wait for a migration.
            connection.execute("pragma auto_vacuum = incremental")
            connection.execute("pragma journal_mode = wal")
            return _apply(connection, path)
        finally:
            connection.close()


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises SchemaMismatch, saying what to run, if this code cannot serve the database."""
    applied = _applied(connection)
    known = [name for name, _ in _files()]
    if unknown := sorted(set(applied) - set(known)):
        raise SchemaMismatch(
            f"{path} was written by a newer release (it has {unknown[-1]}); "
            "install that release or a later one"
        )
    missing = [name for name in known if name not in applied]
    if len(missing) > RELEASES_SERVED or len(missing) == len(known):
        raise SchemaMismatch(f"{path} lacks {missing[0]}; run: receiver migrate")


def _apply(connection: sqlite3.Connection, path: Path) -> list[str]:
    migrations = Migrations("callback-receiver")
    for name, sql in _files():
        migrations(name=name)(_migration(sql))
    if unknown := set(_applied(connection)) - {name for name, _ in _files()}:
        raise SchemaMismatch(f"{path} was written by a newer release (it has {max(unknown)})")
    database = Database(connection)
    connection.execute("begin immediate")
    names = [migration.name for migration in migrations.pending(database)]
    migrations.apply(database)
    connection.execute("commit")
    return names


class _migration:  # noqa: N801 - stands where sqlite-utils expects a function
    """Runs one SQL file; not by `executescript`, which commits first."""

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
    """The migrations by name, in order."""
    folder = resources.files("receiver.stores").joinpath("migrations", "sqlite")
    found = [(entry.name.removesuffix(".sql"), entry) for entry in folder.iterdir()]
    return [(name, entry.read_text()) for name, entry in sorted(found, key=lambda pair: pair[0])]


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
