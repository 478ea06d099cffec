"""Copies the whole record, table by table, from one database to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from receiver.stores.sql.database import Component

# The key of each copied table, ordered so that a row comes after the rows it refers to.
TABLES: Mapping[str, Sequence[str]] = {
    "tasks": ("seq",),
    "callbacks": ("id",),
    "transitions": ("id",),
    "deliveries": ("id",),
    "attempts": ("id",),
    "files": ("delivery", "media_index"),
    "inputs": ("task", "name"),
    "forgotten": ("task",),
    "endpoints": ("hook",),
    "alerts": ("id",),
    "trials": ("hook",),
    "rejections": ("id",),
    "sessions": ("digest",),
    "refused_attempts": ("kind", "slot"),
    "pauses": ("name",),
    "pacing": ("hook",),
    "counters": ("name", "provider"),
    "measures": ("name", "labels"),
    "idempotency_keys": ("key",),
    "clocks": ("boot",),
    "clock_steps": ("id",),
}

PAGE = 1000  # rows
Page = list[dict[str, Any]]  # rows by column name


class Transfer(Component):
    """Reads and writes whole tables, while nothing else uses the store."""

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        row = self._row(f"select count(*) as rows_there from {table}")  # noqa: S608 - of TABLES
        return int(row["rows_there"])

    def pages(self, table: str, after: Mapping[str, Any] | None = None) -> Iterator[Page]:
        """Yield the rows of a table in the order of their keys, in pages of up to PAGE rows.

        `after` is the row after which to begin.
        """
        key = TABLES[table]
        columns, marks = ", ".join(key), ", ".join("?" * len(key))
        while True:
            where = "" if after is None else f"where ({columns}) > ({marks})"
            sql = f"select * from {table} {where} order by {columns} limit ?"  # noqa: S608 - of TABLES
            last = [] if after is None else [after[column] for column in key]
            page = [dict(row) for row in self._rows(sql, [*last, PAGE])]
            if not page:
                return
            yield page
            after = page[-1]

    def load(self, table: str, page: Page) -> None:
        """Insert the rows of a page unchanged, including their keys, in one transaction.

        They are counted, and in PostgreSQL due deliveries are announced to the job queue. Raises
        ValueError if the database cannot store a value.
        """
        columns = list(page[0])
        self._database.load(table, columns, [[row[name] for name in columns] for row in page])
