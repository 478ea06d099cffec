"""Copies the whole record, table by table, from one database to another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from receiver.stores.sql.database import Component, Session

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
    "counters": ("name", "provider"),
    "measures": ("name", "labels"),
    "idempotency_keys": ("key",),
    "clocks": ("boot",),
    "clock_steps": ("id",),
}

AT_ONCE = 500  # rows of a page


class Transfer(Component):
    """Reads and writes whole tables, while nothing else uses the store."""

    def is_empty(self) -> bool:
        """Return whether there are neither tasks nor callbacks on record."""
        return all(
            self._row(f"select 1 from {table} limit 1") is None  # noqa: S608 - of our tables
            for table in ("tasks", "callbacks")
        )

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        row = self._row(f"select count(*) as rows_there from {table}")  # noqa: S608 - of TABLES
        return int(row["rows_there"])

    def dump(self, table: str) -> Iterator[list[dict[str, Any]]]:
        """Yield all rows, in the order of their keys, in pages of rows by column name."""
        last: Sequence[Any] | None = None
        while page := self._page(table, last):
            yield page
            last = [page[-1][column] for column in TABLES[table]]

    def load(self, table: str, page: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows of a page unchanged, including their keys.

        Triggers count the rows, and in PostgreSQL announce due deliveries to the job queue.
        """
        columns = list(page[0])
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        sql = f"insert into {table} ({names}){self._database.overriding} values ({marks})"  # noqa: S608
        values = [[row[column] for column in columns] for row in page]

        def work(session: Session) -> None:
            session.executemany(sql, values)

        self._database.write(work)

    def digest(self, table: str) -> str:
        """Return a digest of all rows, which is equal in both databases if the rows are equal."""
        digest = hashlib.blake2b(digest_size=16)
        for page in self.dump(table):
            for row in page:
                values = sorted((name, _plain(value)) for name, value in row.items())
                digest.update(repr(values).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def _page(self, table: str, last: Sequence[Any] | None) -> list[dict[str, Any]]:
        key = ", ".join(TABLES[table])
        marks = ", ".join("?" * len(TABLES[table]))
        after = f"where ({key}) > ({marks})" if last is not None else ""
        sql = f"select * from {table} {after} order by {key} limit ?"  # noqa: S608 - of TABLES
        found = self._rows(sql, [*(last or ()), AT_ONCE])
        return [{name: row[name] for name in row.keys()} for row in found]  # noqa: SIM118 - a Row


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
