"""Lists of the record, newest first; PostgreSQL keeps statistics, and chooses the index itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from receiver.deliveries import State
from receiver.stores import rows
from receiver.stores.base import ALWAYS, Span
from receiver.stores.sql.session import LAST, Query


def of_tasks(
    wanted: Mapping[str, object], before: int | None, limit: int, created: Span = ALWAYS
) -> Query:
    """The statement for `limit` tasks before this row key, with these values by column."""
    where, values = rows.filters(**wanted)
    more, bounds = rows.within("created_at", created)
    start = LAST if before is None else before
    return _TASKS.format(where=where + more), [start, *values, *bounds, limit]


def of_deliveries(
    task_id: str | None,
    hook: str | None,
    state: State | None,
    before: int | None,
    limit: int,
    of_task: Mapping[str, object] = MappingProxyType({}),
    moved: Span = ALWAYS,
) -> Query:
    """The condition for `limit` deliveries before this row key, and their order."""
    columns = {f"t.{column}": value for column, value in of_task.items()}
    where, values = rows.filters(**{"t.id": task_id, "d.hook": hook, "d.state": state, **columns})
    more, bounds = rows.within("tr.recorded_at", moved)
    start = LAST if before is None else before
    return f"d.id < ? and {where}{more} order by d.id desc limit ?", [
        start,
        *values,
        *bounds,
        limit,
    ]


_TASKS = "select * from tasks where seq < ? and {where} order by seq desc limit ?"
