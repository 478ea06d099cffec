"""Long lists, newest first: a page costs the same however long the record is.

A list is put together from walks along indexes that are in the order of the row key. What no index
has is checked row by row. If a filter leaves only a few tasks, their rows are looked up instead,
because a walk would look for them in vain.
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

FEW = 500  # rows; up to this many are looked up and sorted, instead of searched for along an index

SHORT = 20_000  # transitions; the deliveries of a time span with no more are looked up as well

USUAL_ACCOUNT = "default"  # most tasks have it, and no index has it

DISORDER = 60_000  # ms by which rows that arrive together may be out of order

STEP_OF_CLOCK = 7_200_000  # ms; a clock that is set back by less hides no row from a list

NEIGHBOURS = 7  # rows: a single odd timestamp among them misleads no search

PROBES = 30

Equal = dict[str, object]  # the columns of an index, and their values

# Literal parts of partial indexes, word for word.
PARTIAL = {
    "reference": " and reference is not null",
    "account": f" and account <> '{USUAL_ACCOUNT}'",
    "state": " and state in ('delivered', 'dead')",
}


@dataclass(frozen=True, slots=True)
class ListKeys:
    """The keys of the rows of a list, as statements; `session` answers what they depend on.

    `of_task`: what is wanted of the task, by column.
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
    ) -> Query:
        """Tasks in one of these statuses; none named: in any."""
        equals = self._tasks_along(of_task, statuses)
        rest = [self._aside(of_task, but=equals), rows.within("created_at", created)]
        if statuses and not any("status" in equal for equal in equals):
            rest.append(_among(self.database.unindexed("status"), statuses))
        keys = self._keys(_TASKS, created, before)
        return self._walks(_TASKS, equals, keys, rest, limit)

    def callbacks(
        self,
        of_task: Mapping[str, object],
        wanted: Mapping[str, object],
        received: TimeRange,
        before: int | None,
        limit: int,
    ) -> Query:
        """Callbacks; `wanted`: the provider and the outcome of the callback itself."""
        span = rows.within("received_at", received)
        keys = self._keys(_CALLBACKS, received, before)
        of_tasks = self._exists(_TASK_OF_CALLBACK, of_task)
        tasks = self._few_tasks(of_task)
        if tasks is not None:
            rest = [_among("task", tasks), self._aside(wanted), span, of_tasks]
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
        return self._walks(_CALLBACKS, equals, keys, [span, of_tasks], limit)

    def deliveries(
        self,
        of_task: Mapping[str, object],
        hook: str | None,
        state: State | None,
        moved: TimeRange,
        before: int | None,
        limit: int,
    ) -> Query:
        """Deliveries; `moved`: when their transitions were recorded."""
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
        """Deliveries of a hook; `count`: how many of them are in this state."""
        if state in (State.DELIVERED, State.DEAD):
            equal: Equal = {"state": str(state), "hook": hook}
            return self._walk(_DELIVERIES, equal, keys, rest, limit)
        if count > FEW:  # a backlog: among the newest of the hook, most wait
            rest = [self._aside({"state": str(state)}), *rest]
            return self._walk(_DELIVERIES, {"hook": hook}, keys, rest, limit)
        # The state is literal, because the indexes of what waits are partial.
        waiting: Query = (f" and state = '{state}' and hook = ?", [hook])
        index = "deliveries_waiting" if state is State.PENDING else "deliveries_claimed"
        return self._sorted(_DELIVERIES, keys, [waiting, *rest], limit, index)

    # -- what is looked up first

    def _tasks_along(
        self, of_task: Mapping[str, object], statuses: Sequence[Status] = ()
    ) -> list[Equal]:
        """The walks to these tasks along the index that leaves the fewest."""
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

    def _few_tasks(self, of_task: Mapping[str, object]) -> list[int] | None:
        """The keys of the tasks that one filter leaves; None if they are not few."""
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
        """A condition that leaves the deliveries of a few transitions; None if there is none."""
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

    def _keys(self, table: KeyedTable, span: TimeRange, before: int | None) -> RowKeyRange:
        """The row keys between which the rows of this time are, and perhaps some more.

        Keys are in the order of arrival, but a clock may have been set back. So the search goes
        from the newest row backwards.
        """
        end, first, newest = _until(before).end, 0, self._end(table)
        if span.until is not None:
            key = self._key_at(table, span.until + DISORDER, newest)
            neighbours = self.session.execute(table.neighbours, (key, NEIGHBOURS)).fetchall()
            key = max([key, *(row["id"] + 1 for row in neighbours)])
            times = self._probed(table, key, newest)
            if all(at >= span.until for at in times):  # else the clock was set back
                end = min(end, key)
        if span.since is not None:
            first = self._key_at(table, span.since - DISORDER, min(end, newest))
            earlier, _ = self._about(table, span.since - STEP_OF_CLOCK, first)
            if any(at >= span.since for at in self._probed(table, earlier, first)):
                first = earlier  # the clock was set back
        return RowKeyRange(min(first, end), end)

    def _probed(self, table: KeyedTable, first: int, end: int) -> list[int]:
        """The times of some rows between these keys, evenly spread."""
        if first >= end:
            return []
        step = max(1, (end - first) // PROBES)
        found = self.session.execute(table.probes, (first, step, step, end))
        return [row["at"] for row in found if row["at"] is not None]

    def _key_at(self, table: KeyedTable, instant: int, end: int) -> int:
        """A row key from which on most rows are not older than this, and before which they are."""
        low, high = self._about(table, instant, end)
        while low < high:
            middle = (low + high) // 2
            if self._is_from(table, middle, instant):
                high = middle
            else:
                low = middle + 1
        return low

    def _about(self, table: KeyedTable, instant: int, end: int) -> tuple[int, int]:
        """Two keys between which the rows of this instant are: searched from `end` backwards."""
        high, step = end, 1
        low = high - step
        while low > 0 and self._is_from(table, low, instant):
            high, step = low, 2 * step
            low = high - step
        return max(0, low), high

    def _end(self, table: KeyedTable) -> int:
        """A key above all of the table."""
        found = self.session.execute(f"select max({table.key}) as newest from {table.name}")  # noqa: S608
        return int(found.fetchone()["newest"] or 0) + 1

    def _is_from(self, table: KeyedTable, key: int, instant: int) -> bool:
        """Return whether most of the rows from this key on are not older than the instant."""
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
        """The few rows that `rest` leaves: they are sorted, not looked for along the row key."""
        key = self.database.unindexed(table.key)
        more, values = _joined(rest)
        along = self.database.indexed_by(index) if index else ""
        sql = (
            f"select {table.key} as id from {table.name}{along} "  # noqa: S608 - of this file
            f"where {key} >= ? and {key} < ?{more}"
        )
        return f"{sql} order by {key} desc limit ?", [keys.first, keys.end, *values, limit]

    def _aside(self, wanted: Mapping[str, object], but: Sequence[Equal] = ()) -> Query:
        """Conditions that are checked row by row, except those on the columns of a walk."""
        given = {key: value for key, value in wanted.items() if not any(key in one for one in but)}
        conditions = (f" and {self.database.unindexed(column)} = ?" for column in given)
        return "".join(conditions), list(given.values())

    def _exists(self, sql: str, of_task: Mapping[str, object], span: Query = ("", [])) -> Query:
        """A condition on the task, and on the transition, of a row."""
        columns = {f"t.{column}": value for column, value in of_task.items()}
        more, values = _joined([self._aside(columns), span])
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
    """The newest of what these statements find."""
    if not queries:
        return "select 0 as id where 1 = 0", []
    if len(queries) == 1:
        return queries[0]
    found = " union all ".join(f"select id from ({sql}) as walk" for sql, _ in queries)  # noqa: S608
    values = [value for _, values in queries for value in values]
    return f"select id from ({found}) as walks order by id desc limit ?", [*values, limit]  # noqa: S608


_TASK_BY_ID = "select seq as id from tasks where id = ?"

_PROVIDERS_OF_TASKS = "select distinct provider as name from task_counts"

# Found by skipping along the index, one step for each provider.
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
