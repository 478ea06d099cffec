"""Our web process without group commit: each write is its own batch."""

from typing import Any

from receiver.stores.sqlite.writer import SqliteWriter
from wsgi import app

settle_together = SqliteWriter._settle  # noqa: SLF001 - only the bench changes it


def settle_one_by_one(writer: SqliteWriter, batch: list[Any]) -> None:
    if not batch:  # all writes were cancelled
        settle_together(writer, [])
    for write in batch:
        settle_together(writer, [write])


SqliteWriter._settle = settle_one_by_one  # type: ignore[method-assign,assignment]  # noqa: SLF001

__all__ = ["app"]
