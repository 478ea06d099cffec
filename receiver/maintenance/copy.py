"""Copies the whole database into an empty one, and compares the two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from receiver.errors import CopyFailed
from receiver.stores import open_store
from receiver.stores.sql.transfer import TABLES, Page, Transfer

NO_ROWS: Page = []


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one step: `rows` of `total` rows of this table are copied or compared."""

    step: str  # "copied" or "compared"
    table: str
    rows: int
    total: int


def copy(source_url: str, target_url: str) -> Iterator[Progress]:
    """Copy every table, then compare all rows; yield the progress.

    The source must have the schema of this release, and nothing may write to it during the copy.
    The target is migrated. It must be empty, or contain the rows of an interrupted copy of this
    source, which is then completed. Raises CopyFailed, StoreError.
    """
    with closing(open_store(source_url)) as source, closing(open_store(target_url)) as target:
        source.check_schema()
        target.migrate()
        yield from _copy(Transfer(source.database), Transfer(target.database))
        target.database.settle_sequences()
        yield from _compare(Transfer(source.database), Transfer(target.database))


def _copy(source: Transfer, target: Transfer) -> Iterator[Progress]:
    """Copy the rows that the target does not have yet."""
    last = {table: _last_copied(source, target, table) for table in TABLES}  # before any change
    for table in TABLES:
        total, rows = source.count(table), target.count(table)
        for page in source.pages(table, after=last[table]):
            _load(target, table, page)
            rows += len(page)
            yield Progress("copied", table, rows, total)


def _last_copied(source: Transfer, target: Transfer, table: str) -> Mapping[str, Any] | None:
    """Return the last row of the target; None without any.

    Raises CopyFailed if the rows of the target are not the first rows of the source.
    """
    last: Mapping[str, Any] | None = None
    for copied, page in zip_longest(target.pages(table), source.pages(table), fillvalue=NO_ROWS):
        if not copied:
            break
        if copied != page[: len(copied)]:
            raise CopyFailed(
                f"the target is not empty, and its table {table} does not have the first rows of "
                "the source; name another database, or empty it"
            )
        last = copied[-1]
    return last


def _compare(source: Transfer, target: Transfer) -> Iterator[Progress]:
    """Compare all rows. Raises CopyFailed at the first difference."""
    for table in TABLES:
        total, rows = source.count(table), 0
        pages = zip_longest(source.pages(table), target.pages(table), fillvalue=NO_ROWS)
        for page, copied in pages:
            if page != copied:
                raise CopyFailed(
                    f"the table {table} is not the same in both databases, probably because a "
                    "process still writes to the source. Stop it, empty the target, and copy again"
                )
            rows += len(page)
            yield Progress("compared", table, rows, total)


def _load(target: Transfer, table: str, page: Page) -> None:
    try:
        target.load(table, page)
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
