"""Lists of the record, newest first; PostgreSQL keeps statistics, and chooses the index itself."""

from __future__ import annotations

from collections.abc import Mapping

from receiver.deliveries import State
from receiver.stores import rows
from receiver.stores.sql.session import LAST, Query


def of_tasks(wanted: Mapping[str, object], before: int | None, limit: int) -> Query:
    """The statement for `limit` tasks before this row key, with these values by column."""
    where, values = rows.filters(**wanted)
    return _TASKS.format(where=where), [LAST if before is None else before, *values, limit]


def of_deliveries(
    task_id: str | None, hook: str | None, state: State | None, before: int | None, limit: int
) -> Query:
    """The condition for `limit` deliveries before this row key, and their order."""
    where, values = rows.filters(**{"t.id": task_id, "d.hook": hook, "d.state": state})
    start = LAST if before is None else before
    return f"d.id < ? and {where} order by d.id desc limit ?", [start, *values, limit]


_TASKS = "select * from tasks where seq < ? and {where} order by seq desc limit ?"
