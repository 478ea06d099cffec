"""The record in one SQLite file, for one machine."""

from __future__ import annotations

from pathlib import Path

from receiver.stores.base import Store
from receiver.stores.sqlite.database import SqliteDatabase


class SqliteStore(Store):
    """The record in one SQLite file."""

    database: SqliteDatabase

    def __init__(self, path: Path) -> None:
        super().__init__(SqliteDatabase(path))


__all__ = ["SqliteStore"]
