"""Applies the PostgreSQL schemas, Procrastinate's and ours, under an advisory lock."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from receiver.errors import SchemaMismatch
from receiver.stores.releases import migrations, refuse_newer, refuse_older

OLDEST = 14  # the oldest supported release of PostgreSQL
LOCK = 4_217_001  # the advisory lock for migrations
THEIRS = "procrastinate "  # the prefix of the names of Procrastinate's migrations
# Procrastinate's migrations come in pairs: one that its new code needs, and one that may be applied
# later.
LATER = "_post_"


def migrate(connection: psycopg.Connection[Any]) -> list[str]:
    """Apply all missing migrations, or none, and return their names. Raises SchemaMismatch."""
    _refuse_old_server(connection.info.server_version)
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        connection.execute(_TABLE)
        applied = _applied(connection)
        refuse_newer("the database", applied, _known())
        missing = [(name, sql) for name, sql in _scripts(applied) if name not in applied]
        for name, sql in missing:
            connection.execute(sql.encode())  # bytes are sent unchanged, without placeholders
            connection.execute("insert into callback_receiver_migrations values (%s)", (name,))
        return [name for name, sql in missing if sql]


def check(connection: psycopg.Connection[Any]) -> None:
    """Raise SchemaMismatch if this release cannot use the database."""
    exists = connection.execute("select to_regclass('callback_receiver_migrations') as found")
    row = exists.fetchone()
    applied = _applied(connection) if row and row["found"] else []
    refuse_newer("the database", applied, _known())
    needed = [name for name in _known() if not (name.startswith(THEIRS) and LATER in name)]
    refuse_older("the database", applied, needed)


def _refuse_old_server(version: int) -> None:
    if version < OLDEST * 10_000:
        raise SchemaMismatch(
            f"the server is PostgreSQL {version // 10_000}; {OLDEST} or newer is needed"
        )


def _applied(connection: psycopg.Connection[Any]) -> list[str]:
    found = connection.execute("select name from callback_receiver_migrations")
    return [row["name"] for row in found]


def _known() -> list[str]:
    return [*(THEIRS + path.stem for path in _upgrades()), *(name for name, _ in _ours())]


def _scripts(applied: list[str]) -> list[tuple[str, str]]:
    """Return the names and texts of all scripts, in order.

    A new database gets Procrastinate's complete schema, which includes all of its migrations, so
    their texts are empty.
    """
    upgrades = [(THEIRS + path.stem, path) for path in _upgrades()]
    if any(name.startswith(THEIRS) for name in applied):
        return [*((name, path.read_text()) for name, path in upgrades), *_ours()]
    *earlier, (latest, _) = upgrades
    whole = (_procrastinate() / "schema.sql").read_text()
    return [*((name, "") for name, _ in earlier), (latest, whole), *_ours()]


def _ours() -> list[tuple[str, str]]:
    return migrations("postgres")


def _upgrades() -> list[Path]:
    return sorted((_procrastinate() / "migrations").glob("*.sql"))


def _procrastinate() -> Path:
    """Return the folder of Procrastinate's SQL files, without importing it, which takes time."""
    spec = find_spec("procrastinate")
    if spec is None or not spec.submodule_search_locations:
        raise SchemaMismatch("PostgreSQL needs: pip install 'procrastinate>=3.10'")
    return Path(spec.submodule_search_locations[0]) / "sql"


_TABLE = "create table if not exists callback_receiver_migrations (name text primary key)"
