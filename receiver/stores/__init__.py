"""The register of stores: which one a DATABASE_URL means."""

from __future__ import annotations

from receiver.config.settings import sqlite_path
from receiver.config.values import is_postgres
from receiver.errors import SettingsError
from receiver.stores.base import Store
from receiver.stores.sqlite import SqliteStore
from receiver.stores.waiting import check_schema_when_reachable, when_reachable

INSTALL = (
    "PostgreSQL needs: pip install 'procrastinate>=3.10' 'psycopg[binary]>=3.3' 'psycopg-pool>=3.3'"
)


def open_store(database_url: str) -> Store:
    """The store of this URL; nothing is opened before the first verb. Raises SettingsError."""
    if not is_postgres(database_url):
        return SqliteStore(sqlite_path(database_url))
    try:
        from receiver.stores.postgres import PostgresStore  # noqa: PLC0415 - an extra
    except ImportError:
        raise SettingsError([INSTALL]) from None
    return PostgresStore(database_url)


__all__ = ["Store", "check_schema_when_reachable", "open_store", "when_reachable"]
