"""Metrics, counters, and counts that triggers update."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from receiver.deliveries import State
from receiver.endpoints import Limits
from receiver.observability.metrics import Sample
from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.hook_queues import COUNTED, count_due, load_queues
from receiver.stores.sql.rows import from_row

REPAIRS = "repairs"  # transitions that a query reported before any callback did

CALLBACKS_MISSED = "callbacks_missed"  # final statuses among them

CONFLICTS = "conflicts"  # final statuses that contradict the recorded one

FILES_CHANGED = "database_files_changed"  # by another program, while the database was open

MISMATCHES = "mismatches"  # messages that named another provider task than the one on record


@dataclass(frozen=True, slots=True)
class Counter:
    """The number of events at a provider since the record began."""

    name: str
    provider: str
    value: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """The numbers of due deliveries and dead letters; at most 10,000 for each hook, and in all.

    `held`: the due deliveries whose hook is paused, has a circuit that is not closed, has used up
    its limits, or is not in the hooks file. `oldest_due_at`: since when the oldest delivery that is
    not held can be claimed; for a half-open circuit, since when the probe is due.
    """

    due: int
    dead: int
    oldest_due_at: int | None
    held: int = 0


@dataclass(frozen=True, slots=True)
class OpenTasks:
    """The open tasks of one provider; at most 10,000 of all providers are counted."""

    provider: str
    tasks: int
    awaited: int  # of these, the tasks with a callback URL
    overdue: int  # of these, the tasks that are due for a query


OVERDUE_COUNTED = 1_000  # rows; the exact number of more tasks is not needed

HOUR = 3_600_000  # ms

HOURS_KEPT = 48

SLOWEST = HOUR  # the bucket of latencies of five minutes or more


@dataclass(frozen=True, slots=True)
class TaskCount:
    """The number of a provider's tasks with one status; `given_up` is a separate one here."""

    provider: str
    status: str
    value: int


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """The number of a hook's deliveries in one state."""

    hook: str
    state: str
    value: int


@dataclass(frozen=True, slots=True)
class HourCount:
    """The number of events in one hour, which is counted from 1970.

    `series` is `callbacks`, `succeeded`, `failed` or `latency`. A latency is below `bucket` ms.
    """

    hour: int
    provider: str
    series: str
    bucket: int
    value: int


def without_hook(counts: Iterable[DeliveryCount], hooks: Collection[str]) -> dict[str, int]:
    """Return how many deliveries wait for each hook that is not in the hooks file."""
    return {
        one.hook: one.value
        for one in counts
        if one.state == State.PENDING and one.value and one.hook not in hooks
    }


class Metrics(Component):
    """Reads and writes metrics, counters and counts."""

    def add(self, added: Sequence[Sample], newest: Sequence[Sample]) -> None:
        """Add the samples of `added` to the stored ones, and store the greater of each `newest`."""

        def work(session: Session) -> None:
            session.executemany(_ADD, [_row(sample) for sample in added])
            session.executemany(_PUT, [_row(sample) for sample in newest])

        self._database.write(work)

    def samples(self) -> list[Sample]:
        """Return all stored samples, by name and labels."""
        found = self._rows("select * from measures order by name, labels")
        values = ((row["name"], _labels(row["labels"]), row["value"]) for row in found)
        return [Sample(name, labels, value) for name, labels, value in values if labels is not None]

    def open_tasks(self, now: int) -> list[OpenTasks]:
        """Return the number of open tasks of each provider that has any."""
        return [from_row(OpenTasks, row) for row in self._rows(_OPEN, (now, COUNTED))]

    def counters(self) -> list[Counter]:
        """Return all counters, by name and provider."""
        found = self._rows("select * from counters order by name, provider")
        return [from_row(Counter, row) for row in found]

    def backlog(
        self,
        now: int,
        hooks: Collection[str] | None = None,
        limits: Mapping[str, Limits] = MappingProxyType({}),
    ) -> Backlog:
        """Return the backlog of deliveries. `hooks`: the names in the hooks file, if known."""
        with self._database.reading() as session:
            dead = session.execute(_DEAD, (COUNTED,)).fetchone()["dead"]
            waiting = [
                (queue, count_due(session, queue.hook, now))
                for queue in load_queues(session, limits, now)
            ]
        usable = {queue.hook for queue, _ in waiting if hooks is None or queue.hook in hooks}
        ready = [queue.ready_since(now) for queue, _ in waiting if queue.hook in usable]
        oldest = min((since for since in ready if since is not None), default=None)
        held = sum(
            number
            for queue, number in waiting
            if queue.hook not in usable or queue.is_held(now) or queue.is_paced(now)
        )
        return Backlog(sum(count for _, count in waiting), dead, oldest, held)

    def task_counts(self) -> list[TaskCount]:
        """Return the number of tasks by provider and status. Triggers count them."""
        return [from_row(TaskCount, row) for row in self._rows(_TASKS)]

    def delivery_counts(self) -> list[DeliveryCount]:
        """Return the number of deliveries by hook and state. Triggers count them."""
        return [from_row(DeliveryCount, row) for row in self._rows(_DELIVERIES)]

    def hours(self, since: int) -> list[HourCount]:
        """Return the counts of this hour and later, oldest first, of the last two days at most.

        Triggers count the events.
        """
        return [from_row(HourCount, row) for row in self._rows(_HOURS, (since,))]

    def last_callbacks(self) -> dict[str, int]:
        """Return the time of the last callback that was not a byte-identical repeat, by provider.

        A trigger stores the time.
        """
        return {row["provider"]: row["last_at"] for row in self._rows(_LAST)}

    def overdue_count(self, now: int) -> int:
        """Return the number of tasks that are due for a query, at most 1,000."""
        return int(self._row(_OVERDUE, (now, OVERDUE_COUNTED))["overdue"])


def count(session: Session, name: str, provider: str) -> None:
    """Count one event, in the transaction that records it."""
    session.execute(_COUNT, (name, provider))


def _labels(text: str) -> tuple[str, ...] | None:
    """Return the values of the labels; None if they are damaged."""
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(map(str, labels)) if isinstance(labels, list) else None


def _row(sample: Sample) -> tuple[str, str, float]:
    labels = json.dumps(sample.labels, ensure_ascii=False, separators=(",", ":"))
    return sample.name, labels, float(sample.value)


_ADD = """
insert into measures (name, labels, value) values (?, ?, ?)
on conflict (name, labels) do update set value = measures.value + excluded.value
"""

_PUT = """
insert into measures (name, labels, value) values (?, ?, ?)
on conflict (name, labels) do update set value = case
  when excluded.value > measures.value then excluded.value else measures.value end
"""

# An open task has a deadline until it ends or is given up. A task that has ended has one only while
# it is due for another query.
_OPEN = """
select provider, count(*) as tasks,
  count(case when expects_callback = 1 then 1 end) as awaited,
  count(case when deadline_at <= ? then 1 end) as overdue
from (
  select provider, expects_callback, deadline_at from tasks
  where deadline_at is not null and status in ('created', 'submitted', 'processing')
  order by deadline_at limit ?
) as found
group by provider
"""

_COUNT = """
insert into counters (name, provider, value) values (?, ?, 1)
on conflict (name, provider) do update set value = counters.value + 1
"""

_DEAD = """
select count(*) as dead from (select 1 from deliveries where state = 'dead' order by id limit ?)
as found
"""

_TASKS = """
select provider, status, cast(sum(value) as bigint) as value from task_counts
group by provider, status order by provider, status
"""

_DELIVERIES = """
select hook, state, cast(sum(value) as bigint) as value from delivery_counts
group by hook, state order by hook, state
"""

_HOURS = """
select hour, provider, series, bucket, cast(sum(value) as bigint) as value
from hours where hour >= ? group by hour, provider, series, bucket
order by hour, provider, series, bucket
"""

_LAST = """
select provider, max(last_at) as last_at from hours where series = 'callbacks' group by provider
order by provider
"""

_OVERDUE = """
select count(*) as overdue from (
  select 1 from tasks where deadline_at is not null and deadline_at <= ? limit ?
) as found
"""
