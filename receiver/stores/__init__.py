"""The register of stores: which one a DATABASE_URL means."""

from __future__ import annotations

from receiver.settings import sqlite_path
from receiver.stores.base import Store
from receiver.stores.sqlite import SqliteStore


def open_store(database_url: str) -> Store:
    """The store of this URL; nothing is opened before the first verb."""
    return SqliteStore(sqlite_path(database_url))


__all__ = ["Store", "open_store"]
