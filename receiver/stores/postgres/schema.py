"""The PostgreSQL schema: numbered SQL files, applied under an advisory lock."""

from __future__ import annotations

from importlib import resources
from typing import Any

import psycopg

from receiver.errors import SchemaMismatch

LOCK = 4_217_001  # of all who migrate this database


def migrate(connection: psycopg.Connection[Any]) -> list[str]:
    """Apply what is missing, all or nothing; the names applied. Raises SchemaMismatch."""
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        connection.execute(_TABLE)
        applied = _applied(connection)
        _refuse_newer(applied)
        missing = [(name, sql) for name, sql in _files() if name not in applied]
        for name, sql in missing:
            connection.execute(sql)
            connection.execute("insert into callback_receiver_migrations values (%s)", (name,))
        return [name for name, _ in missing]


def check(connection: psycopg.Connection[Any]) -> None:
    """Raises SchemaMismatch, saying what to run, if this code cannot serve the database."""
    exists = connection.execute("select to_regclass('callback_receiver_migrations') as found")
    row = exists.fetchone()
    applied = _applied(connection) if row and row["found"] else []
    _refuse_newer(applied)
    missing = [name for name, _ in _files() if name not in applied]
    if missing:
        raise SchemaMismatch(f"the database lacks {missing[0]}; run: receiver migrate")


def _refuse_newer(applied: list[str]) -> None:
    if unknown := sorted(set(applied) - {name for name, _ in _files()}):
        raise SchemaMismatch(
            f"the database was written by a newer release (it has {unknown[-1]}); "
            "install that release or a later one"
        )


def _applied(connection: psycopg.Connection[Any]) -> list[str]:
    found = connection.execute("select name from callback_receiver_migrations")
    return [row["name"] for row in found]


def _files() -> list[tuple[str, str]]:
    """The migrations by name, in order."""
    folder = resources.files("receiver.stores").joinpath("migrations", "postgres")
    found = [(entry.name.removesuffix(".sql"), entry) for entry in folder.iterdir()]
    return [(name, entry.read_text()) for name, entry in sorted(found, key=lambda pair: pair[0])]


_TABLE = "create table if not exists callback_receiver_migrations (name text primary key)"
