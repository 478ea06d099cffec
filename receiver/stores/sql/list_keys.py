"""Finds the row keys of lists, newest first, in a time independent of the record's size.

A list is merged from reads along indexes that are in the order of the row key. Conditions without
an index are checked row by row. If only a few tasks match a filter, their rows are looked up
instead, because reading along an index would check many rows in vain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from receiver.deliveries import State
from receiver.stores.sql import rows
from receiver.stores.sql.database import LAST, Database, Query, RowKeyRange, Session
from receiver.stores.sql.rows import ALWAYS, TimeRange
from receiver.tasks import Outcome, Status

FEW = 500  # rows; up to this number is looked up and sorted, instead of read along an index

SHORT = 20_000  # transitions; the deliveries of a time range with fewer are looked up as well

USUAL_ACCOUNT = "default"  # most tasks belong to this account, so the index leaves it out

DISORDER = 60_000  # ms by which rows that arrive together may be out of order

STEP_OF_CLOCK = 7_200_000  # ms; setting the clock back by less than this hides no row from a list

NEIGHBOURS = 7  # rows, whose median time is compared, so that single wrong times do not matter

PROBES = 30  # rows

Equal = dict[str, object]  # the columns of an index, and their values

# Literal conditions of partial indexes, exactly as in the schema.
PARTIAL = {
    "reference": " and reference is not null",
    "account": f" and account <> '{USUAL_ACCOUNT}'",
    "state": " and state in ('delivered', 'dead')",
}


@dataclass(frozen=True, slots=True)
class ListKeys:
    """Makes the statements that select the row keys of a list.

    They depend on the data that is read in `session`. `of_task`: the conditions on the task, by
    column.
    """

    session: Session
    database: Database

    def tasks(
        self,
        of_task: Mapping[str, object],
        statuses: Sequence[Status],
        created: TimeRange,
        before: int | None,
        limit: int,
        *,
        provider_task_id: str | None = None,
        given_up: bool = False,
    ) -> Query:
        """Return the statement for tasks with one of these statuses, or any without `statuses`.

        `provider_task_id` and `given_up` are further conditions; see `Lists.page_of_tasks`.
        """
        equals = self._tasks_along(of_task, statuses)
        is_short = provider_task_id is not None or (given_up and "reference" not in of_task)
        rest = [
            self._aside(of_task, but=[] if is_short else equals),
            rows.within("created_at", created),
        ]
        if statuses and (is_short or not any("status" in equal for equal in equals)):
            rest.append(_among(self.database.unindexed("status"), statuses))
        if given_up:
            rest.append(_GIVEN_UP)
        keys = self._keys(_TASKS, created, before)
        if provider_task_id is not None:
            return self._sorted(_TASKS, keys, [self._at_provider(provider_task_id), *rest], limit)
        if is_short:
            return self._sorted(_TASKS, keys, rest, limit, "tasks_given_up")
        return self._walks(_TASKS, equals, keys, rest, limit)

    def callbacks(
        self,
        of_task: Mapping[str, object],
        wanted: Mapping[str, object],
        received: TimeRange,
        before: int | None,
        limit: int,
    ) -> Query:
        """Return the statement for callbacks. `wanted`: their own provider and outcome."""
        times = rows.within("received_at", received)
        keys = self._keys(_CALLBACKS, received, before)
        of_tasks = self._exists(_TASK_OF_CALLBACK, of_task)
        tasks = self._few_tasks(of_task)
        if tasks is not None:
            rest = [_among("task", tasks), self._aside(wanted), times, of_tasks]
            return self._sorted(_CALLBACKS, keys, rest, limit)
        equals: list[Equal] = [{}]
        if wanted:
            providers, outcomes = wanted.get("provider"), wanted.get("outcome")
            equals = [
                {"provider": provider, "outcome": str(outcome)}
                for provider, outcome in product(
                    [providers] if providers else self._names(_PROVIDERS_OF_CALLBACKS),
                    [outcomes] if outcomes else Outcome,
                )
            ]
        return self._walks(_CALLBACKS, equals, keys, [times, of_tasks], limit)

    def deliveries(
        self,
        of_task: Mapping[str, object],
        hook: str | None,
        state: State | None,
        moved: TimeRange,
        before: int | None,
        limit: int,
    ) -> Query:
        """Return the statement for deliveries. `moved`: when their transitions were recorded."""
        keys = _until(before)
        of_move = self._exists(_MOVE_OF_DELIVERY, of_task, rows.within("tr.recorded_at", moved))
        own: Equal = {} if hook is None else {"hook": hook}
        wanted = own if state is None else {**own, "state": str(state)}
        if (moves := self._few_moves(of_task, moved)) is not None:
            return self._sorted(_DELIVERIES, keys, [moves, self._aside(wanted), of_move], limit)
        if state is None:
            return self._walks(_DELIVERIES, [own], keys, [of_move], limit)
        found = self.session.execute(_HOOKS, (str(state),)).fetchall()
        counts = {row["hook"]: row["value"] for row in found}
        walks = [
            self._of_state(name, state, counts[name], keys, [of_move], limit)
            for name in ([hook] if hook is not None else counts)
            if name in counts
        ]
        return _all(walks, limit)

    def _of_state(
        self, hook: str, state: State, count: int, keys: RowKeyRange, rest: list[Query], limit: int
    ) -> Query:
        """Return the statement for deliveries of a hook, `count` of which are in this state."""
        if state in (State.DELIVERED, State.DEAD):
            equal: Equal = {"state": str(state), "hook": hook}
            return self._walk(_DELIVERIES, equal, keys, rest, limit)
        if count > FEW:  # in a backlog, most of the newest deliveries of the hook are pending
            rest = [self._aside({"state": str(state)}), *rest]
            return self._walk(_DELIVERIES, {"hook": hook}, keys, rest, limit)
        # The state is a literal, because the indexes of these states are partial.
        waiting: Query = (f" and state = '{state}' and hook = ?", [hook])
        index = "deliveries_waiting" if state is State.PENDING else "deliveries_claimed"
        return self._sorted(_DELIVERIES, keys, [waiting, *rest], limit, index)

    # -- data that the statements depend on

    def _tasks_along(
        self, of_task: Mapping[str, object], statuses: Sequence[Status] = ()
    ) -> list[Equal]:
        """Return the walks that find these tasks, along the most selective index."""
        if "reference" in of_task:
            return [{"reference": of_task["reference"]}]
        if of_task.get("account", USUAL_ACCOUNT) != USUAL_ACCOUNT:
            return [{"account": of_task["account"]}]
        if "provider" not in of_task and not statuses:
            return [{}]
        known = [of_task["provider"]] if "provider" in of_task else self._names(_PROVIDERS_OF_TASKS)
        return [
            {"provider": provider, "status": str(status)}
            for provider, status in product(known, statuses or Status)
        ]

    def _at_provider(self, provider_task_id: str) -> Query:
        """Return a condition that selects the tasks with this id at any provider."""
        found = [
            row["id"]
            for provider in self._names(_PROVIDERS_OF_TASKS)
            for row in self.session.execute(
                _TASKS_BY_PROVIDER_ID, {"provider": provider, "id": provider_task_id}
            )
        ]
        return _among(_TASKS.key, found)

    def _few_tasks(self, of_task: Mapping[str, object]) -> list[int] | None:
        """Return the keys of the tasks that match a filter; None if there are more than FEW."""
        if "id" in of_task:
            found = self.session.execute(_TASK_BY_ID, (of_task["id"],))
            return [row["id"] for row in found]
        equals = self._tasks_along(of_task)
        if equals == [{}]:
            return None
        query = self._walks(_TASKS, equals, RowKeyRange(), [], FEW + 1)
        found = self.session.execute(*query)
        keys = [row["id"] for row in found]
        return keys if len(keys) <= FEW else None

    def _few_moves(self, of_task: Mapping[str, object], moved: TimeRange) -> Query | None:
        """Return a condition that selects the deliveries of few transitions; None without one."""
        tasks = self._few_tasks(of_task)
        if tasks is not None:
            sql = f"select id from transitions where {rows.any_of('task', tasks)}"  # noqa: S608
            return f" and transition in ({sql})", list(tasks)
        keys = self._keys(_MOVES, moved, self._end(_MOVES))
        if moved == ALWAYS or keys.end - keys.first > SHORT:
            return None
        return " and transition >= ? and transition < ?", [keys.first, keys.end]

    def _names(self, sql: str) -> list[object]:
        return [row["name"] for row in self.session.execute(sql)]

    def _keys(self, table: KeyedTable, times: TimeRange, before: int | None) -> RowKeyRange:
        """Return a range of row keys that contains all rows of this time range, and few others.

        Keys are in the order of arrival, but a clock may have been set back. Therefore the search
        begins at the newest row.
        """
        end, first, newest = _until(before).end, 0, self._end(table)
        if times.until is not None:
            key = self._key_at(table, times.until + DISORDER, newest)
            neighbours = self.session.execute(table.neighbours, (key, NEIGHBOURS)).fetchall()
            key = max([key, *(row["id"] + 1 for row in neighbours)])
            later = self._probed(table, key, newest)
            if all(at >= times.until for at in later):  # otherwise, the clock was set back
                end = min(end, key)
        if times.since is not None:
            first = self._key_at(table, times.since - DISORDER, min(end, newest))
            earlier, _ = self._about(table, times.since - STEP_OF_CLOCK, first)
            if any(at >= times.since for at in self._probed(table, earlier, first)):
                first = earlier  # the clock was set back
        return RowKeyRange(min(first, end), end)

    def _probed(self, table: KeyedTable, first: int, end: int) -> list[int]:
        """Return the times of some evenly spread rows between these keys."""
        if first >= end:
            return []
        step = max(1, (end - first) // PROBES)
        found = self.session.execute(table.probes, (first, step, step, end))
        return [row["at"] for row in found if row["at"] is not None]

    def _key_at(self, table: KeyedTable, instant: int, end: int) -> int:
        """Return the row key from which most rows are no longer older than this time."""
        low, high = self._about(table, instant, end)
        while low < high:
            middle = (low + high) // 2
            if self._is_from(table, middle, instant):
                high = middle
            else:
                low = middle + 1
        return low

    def _about(self, table: KeyedTable, instant: int, end: int) -> tuple[int, int]:
        """Return two keys around the rows of this time, searching backwards from `end`."""
        high, step = end, 1
        low = high - step
        while low > 0 and self._is_from(table, low, instant):
            high, step = low, 2 * step
            low = high - step
        return max(0, low), high

    def _end(self, table: KeyedTable) -> int:
        """Return the key after the newest row of the table."""
        newest = self.session.execute(f"select max({table.key}) as newest from {table.name}")  # noqa: S608
        return int(newest.fetchone()["newest"] or 0) + 1

    def _is_from(self, table: KeyedTable, key: int, instant: int) -> bool:
        """Return whether most of the next rows from this key on are not older than this time."""
        found = self.session.execute(table.neighbours, (key, NEIGHBOURS)).fetchall()
        times = sorted(row["at"] for row in found)
        return not times or times[len(times) // 2] >= instant

    # -- parts of statements

    def _walk(
        self, table: KeyedTable, equal: Equal, keys: RowKeyRange, rest: Sequence[Query], limit: int
    ) -> Query:
        literal: list[Query] = [(PARTIAL[column], []) for column in equal if column in PARTIAL]
        return self.database.walk(table.name, table.key, equal, keys, _joined(literal, rest), limit)

    def _walks(
        self,
        table: KeyedTable,
        equals: Sequence[Equal],
        keys: RowKeyRange,
        rest: Sequence[Query],
        limit: int,
    ) -> Query:
        return _all([self._walk(table, equal, keys, rest, limit) for equal in equals], limit)

    def _sorted(
        self,
        table: KeyedTable,
        keys: RowKeyRange,
        rest: Sequence[Query],
        limit: int,
        index: str = "",
    ) -> Query:
        """Return the statement that looks up and sorts the few rows that match `rest`."""
        key = self.database.unindexed(table.key)
        more, values = _joined(rest)
        along = self.database.indexed_by(index) if index else ""
        sql = (
            f"select {table.key} as id from {table.name}{along} "  # noqa: S608 - contains no input
            f"where {key} >= ? and {key} < ?{more}"
        )
        return f"{sql} order by {key} desc limit ?", [keys.first, keys.end, *values, limit]

    def _aside(self, wanted: Mapping[str, object], but: Sequence[Equal] = ()) -> Query:
        """Return conditions to check row by row, except those on the columns of the walks."""
        given = {key: value for key, value in wanted.items() if not any(key in eq for eq in but)}
        conditions = (f" and {self.database.unindexed(column)} = ?" for column in given)
        return "".join(conditions), list(given.values())

    def _exists(self, sql: str, of_task: Mapping[str, object], times: Query = ("", [])) -> Query:
        """Return the conditions on the task and on the transition of a row."""
        columns = {f"t.{column}": value for column, value in of_task.items()}
        more, values = _joined([self._aside(columns), times])
        return (f" and exists ({sql}{more})", values) if more else ("", [])


@dataclass(frozen=True, slots=True)
class KeyedTable:
    """A table whose row keys are in the order of arrival."""

    name: str
    key: str
    at: str  # the column with the time of arrival

    @property
    def neighbours(self) -> str:
        return (
            f"select {self.key} as id, {self.at} as at from {self.name} where {self.key} >= ? "  # noqa: S608
            f"order by {self.key} limit ?"
        )

    @property
    def probes(self) -> str:
        at = f"select {self.at} from {self.name} where {self.key} >= probe.id order by {self.key}"  # noqa: S608
        return f"""
with recursive probe (id) as (
  select cast(? as bigint) union all
  select id + cast(? as bigint) from probe where id + cast(? as bigint) < cast(? as bigint)
)
select ({at} limit 1) as at from probe
"""  # noqa: S608


_TASKS = KeyedTable("tasks", "seq", "created_at")

_CALLBACKS = KeyedTable("callbacks", "id", "received_at")

_MOVES = KeyedTable("transitions", "id", "recorded_at")

_DELIVERIES = KeyedTable("deliveries", "id", "due_at")


def _until(before: int | None) -> RowKeyRange:
    return RowKeyRange(end=LAST if before is None else before)


def _among(column: str, values: Sequence[Any]) -> Query:
    return f" and {rows.any_of(column, values)}", list(values)


def _joined(*groups: Sequence[Query]) -> Query:
    parts = [part for group in groups for part in group]
    return "".join(sql for sql, _ in parts), [value for _, values in parts for value in values]


def _all(queries: Sequence[Query], limit: int) -> Query:
    """Return the statement for the newest rows that these statements find."""
    if not queries:
        return "select 0 as id where 1 = 0", []
    if len(queries) == 1:
        return queries[0]
    found = " union all ".join(f"select id from ({sql}) as walk" for sql, _ in queries)  # noqa: S608
    values = [value for _, values in queries for value in values]
    return f"select id from ({found}) as walks order by id desc limit ?", [*values, limit]  # noqa: S608


# A literal condition, because the index of these tasks is partial.
_GIVEN_UP: Query = (" and given_up_at is not null", [])

_TASKS_BY_PROVIDER_ID = """
select seq as id from tasks where provider = :provider and provider_task_id = :id
union
select seq as id from tasks where provider = :provider and callback_task_id = :id
"""

_TASK_BY_ID = "select seq as id from tasks where id = ?"

_PROVIDERS_OF_TASKS = "select distinct provider as name from task_counts"

# The providers are found by skipping along the index, with one step for each of them.
_PROVIDERS_OF_CALLBACKS = """
with recursive known (name) as (
  select min(provider) from callbacks
  union all
  select (select min(provider) from callbacks where provider > known.name)
  from known where known.name is not null
)
select name from known where name is not null
"""

_HOOKS = """
select hook, sum(value) as value from delivery_counts where state = ?
group by hook having sum(value) > 0
"""

_TASK_OF_CALLBACK = "select 1 from tasks t where t.seq = callbacks.task"

_MOVE_OF_DELIVERY = """
select 1 from transitions tr join tasks t on t.seq = tr.task where tr.id = deliveries.transition
"""
