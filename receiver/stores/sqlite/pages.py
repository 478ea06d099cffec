"""Lists of the record, newest first: each filter is read along one index, whatever else is wanted.

SQLite keeps no statistics here, and might take the index of the commoner filter and then look at
most of the table: a `+` before a column puts it out of reach of its index.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from receiver.deliveries import State
from receiver.stores import rows
from receiver.stores.base import ALWAYS, Span
from receiver.stores.sql.session import LAST, Query
from receiver.tasks import Status

USUAL_ACCOUNT = "default"  # most tasks have it: it is looked for along the row key


def of_tasks(
    wanted: Mapping[str, object], before: int | None, limit: int, created: Span = ALWAYS
) -> Query:
    """The statement for `limit` tasks before this row key, with these values by column."""
    given = {column: value for column, value in wanted.items() if value is not None}
    drives = _drives(given)
    # An index on two columns is in the order of the row key only where both are known.
    open_ended = "provider" in drives and "status" not in given
    parts = [{**given, "status": status} for status in Status] if open_ended else [given]
    more, bounds = rows.within("created_at", created)
    selects, values = [], list[object]()
    for part in parts:
        selects.append(_PART.format(where=_where(part, drives) + more))
        values += [*part.values(), *bounds, LAST if before is None else before, limit]
    return f"{' union all '.join(selects)} order by seq desc limit ?", [*values, limit]


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
    start = LAST if before is None else before
    about, values_about = _about(of_task, moved)
    if task_id is None and not about and state in (State.PENDING, State.CLAIMED):
        index = "waiting" if state is State.PENDING else "claimed"
        where = _WAITING.format(index=index, state=state, hook="and hook = ?" if hook else "")
        return f"{where} {_ORDER}", [start, *([hook] if hook else []), limit, limit]
    conditions, values = ["d.id < ?"], list[object]([start])
    if task_id is not None:
        conditions.append("t.id = ?")
        values.append(task_id)
    if state is not None:
        # Written out: the index of the dead serves no condition on a state to be named later.
        conditions.append(f"d.state = '{state}'")
    if hook is not None:
        has_better = task_id is not None or state is State.DEAD
        conditions.append("+d.hook = ?" if has_better else "d.hook = ?")
        values.append(hook)
    return f"{' and '.join(conditions)}{about} {_ORDER}", [*values, *values_about, limit]


def _about(of_task: Mapping[str, object], moved: Span) -> Query:
    """What is wanted of the task and of the move: looked at row by row, but for a reference."""
    given = {column: value for column, value in of_task.items() if value is not None}
    conditions = [
        f" and t.{column} = ?" if column == "reference" else f" and +t.{column} = ?"
        for column in given
    ]
    more, bounds = rows.within("tr.recorded_at", moved)
    return "".join(conditions) + more, [*given.values(), *bounds]


def _drives(given: Mapping[str, object]) -> frozenset[str]:
    """The columns of the index that is read: that of the filter which leaves the fewest."""
    if "reference" in given:
        return frozenset({"reference"})
    if given.get("account", USUAL_ACCOUNT) != USUAL_ACCOUNT:
        return frozenset({"account"})
    return frozenset({"provider", "status"} & ({"status"} | given.keys()))


def _where(given: Mapping[str, object], drives: frozenset[str]) -> str:
    conditions = [f"{column if column in drives else f'+{column}'} = ?" for column in given]
    if "account" in drives:
        conditions.append(f"account <> '{USUAL_ACCOUNT}'")  # word for word as in the index
    return " and ".join([*conditions, "1"])


_PART = """
select * from (select * from tasks where {where} and seq < ? order by seq desc limit ?)
"""
_ORDER = "order by d.id desc limit ?"
# What waits is little where workers keep up; the record of what was delivered only grows.
_WAITING = """
d.id in (
  select id from deliveries indexed by deliveries_{index}
  where state = '{state}' and id < ? {hook}
  order by id desc limit ?
)
"""
