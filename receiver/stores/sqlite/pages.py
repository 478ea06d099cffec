"""Walks along indexes, newest first.

SQLite keeps no statistics here, and might take the index of the commoner filter and then look at
most of the table: a `+` before a column keeps its index out of reach.
"""

from __future__ import annotations

from collections.abc import Mapping

from receiver.stores.sql.session import Query, RowKeyRange


def walk(
    table: str, key: str, equal: Mapping[str, object], keys: RowKeyRange, rest: Query, limit: int
) -> Query:
    """See `stores.sql.session.Pages`: an index of SQLite ends with the row key."""
    conditions = [*(f"{column} = ?" for column in equal), f"{key} >= ?", f"{key} < ?"]
    more, values = rest
    sql = (
        f"select {key} as id from {table} where {' and '.join(conditions)}{more} "  # noqa: S608 - of `lists`
        f"order by {key} desc limit ?"
    )
    return sql, [*equal.values(), keys.first, keys.end, *values, limit]


def indexed_by(index: str) -> str:
    """See `stores.sql.session.Pages`."""
    return f" indexed by {index}"


def aside(column: str) -> str:
    """See `stores.sql.session.Pages`."""
    return f"+{column}"
