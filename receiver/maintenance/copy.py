"""Copies the whole database into an empty one, and verifies the copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from receiver.errors import CopyFailed
from receiver.stores import Store, open_store
from receiver.stores.sql.transfer import TABLES, Transfer


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of the copy: `rows` of `total` rows of this table are copied."""

    table: str
    rows: int
    total: int


def copy(source_url: str, target_url: str) -> Iterator[Progress]:
    """Copy every table, yielding each step; then compare counts and checksums.

    The source must have the schema of this release, and nothing may write to it during the copy.
    The target must be empty; it is migrated first. Raises CopyFailed, StoreError.
    """
    source, target = open_store(source_url), open_store(target_url)
    try:
        source.check_schema()
        target.migrate()
        if not Transfer(target.database).is_empty():
            raise CopyFailed("the target is not empty; name another database, or empty it")
        for table in TABLES:
            total, done = Transfer(source.database).count(table), 0
            for rows in Transfer(source.database).dump(table):
                _load(target, table, rows)
                done += len(rows)
                yield Progress(table, done, total)
        target.database.settle_sequences()
        for table in TABLES:
            if Transfer(source.database).digest(table) != Transfer(target.database).digest(table):
                raise CopyFailed(
                    f"the table {table} is not the same in both databases, probably because a "
                    "process still writes to the source. Stop it, empty the target, and copy again"
                )
    finally:
        source.close()
        target.close()


def _load(target: Store, table: str, rows: list[dict[str, Any]]) -> None:
    try:
        Transfer(target.database).load(table, rows)
    except ValueError as error:
        raise CopyFailed(f"the target rejects a row of the table {table}: {error}") from error
    except Exception as error:
        if all(kind.__name__ != "IntegrityError" for kind in type(error).__mro__):  # of any driver
            raise
        raise CopyFailed(
            f"rows of the table {table} refer to rows that were added since the copy began, "
            "because a process still writes to the source. Stop it, empty the target, and "
            "copy again"
        ) from error
