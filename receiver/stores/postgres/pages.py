"""Walks along indexes, newest first.

PostgreSQL keeps statistics, but plans a prepared statement for average values. With plain
conditions it might then walk along the row key and look at most of the table for a rare value. The
order of all columns of an index, and bounds on them together, are only of use with that index.
"""

from __future__ import annotations

from collections.abc import Mapping

from receiver.stores.sql.session import Query, RowKeyRange


def walk(
    table: str, key: str, equal: Mapping[str, object], keys: RowKeyRange, rest: Query, limit: int
) -> Query:
    """See `stores.sql.session.Pages`: the index ends with the row key."""
    columns = [*equal, key]
    row, places = ", ".join(columns), ", ".join("?" * len(columns))
    order = ", ".join(f"{column} desc" for column in columns)
    more, values = rest
    sql = (
        f"select {key} as id from {table} "  # noqa: S608 - of `lists`
        f"where ({row}) >= ({places}) and ({row}) < ({places}){more} order by {order} limit ?"
    )
    wanted = [*equal.values()]
    return sql, [*wanted, keys.first, *wanted, keys.end, *values, limit]


def indexed_by(_: str) -> str:
    """See `stores.sql.session.Pages`: by its statistics, PostgreSQL finds it."""
    return ""


def aside(column: str) -> str:
    """See `stores.sql.session.Pages`."""
    return column
