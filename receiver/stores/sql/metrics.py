"""Metrics, counters, and counts that triggers keep."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from receiver.deliveries import State
from receiver.observability.metrics import Sample
from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.hook_queues import COUNTED, count_due, load_queues

REPAIRS = "repairs"  # moves that a poll brought because no callback had

CALLBACKS_MISSED = "callbacks_missed"  # ends among them

CONFLICTS = "conflicts"  # ends that contradicted the one on record

FILES_CHANGED = "database_files_changed"  # by another program, while the database was open

MISMATCHES = "mismatches"  # messages that named another provider task than the one on record


@dataclass(frozen=True, slots=True)
class Counter:
    """How often something happened at a provider since the record began."""

    name: str
    provider: str
    value: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much waits; counted up to 10,000 of each hook, and 10,000 dead ones.

    `held`: those of the due deliveries whose hook is paused, has a circuit that is not closed, or
    is not in the hooks file.
    `oldest_due_at`: since when the oldest delivery could have been made that is not held. A hook
    that may be probed counts from the time at which the probe was due.
    """

    due: int
    dead: int
    oldest_due_at: int | None
    held: int = 0


@dataclass(frozen=True, slots=True)
class OpenTasks:
    """A provider's tasks that have not ended; of all providers up to 10,000 are counted."""

    provider: str
    tasks: int
    awaited: int  # of these, those whose provider calls back
    overdue: int  # of these, those that have to be asked about now


OVERDUE_COUNTED = 1_000  # beyond that nobody needs the number

HOUR = 3_600_000  # ms

HOURS_KEPT = 48

SLOWEST = HOUR  # the bucket of what took five minutes or longer


@dataclass(frozen=True, slots=True)
class TaskCount:
    """How many tasks of a provider stand so. `status`: also `given_up`, for an open one."""

    provider: str
    status: str
    value: int


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """How many deliveries to a hook are in this state."""

    hook: str
    state: str
    value: int


@dataclass(frozen=True, slots=True)
class HourCount:
    """How often something happened in an hour (counted from 1970).

    `series`: `callbacks`, `succeeded`, `failed`, or `latency`; then `bucket` is the milliseconds
    that it was below.
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
    """What processes count, and what the database counts."""

    def add(self, added: Sequence[Sample], newest: Sequence[Sample]) -> None:
        """Add the first to what is kept; of the second keep the greater value."""

        def work(session: Session) -> None:
            session.executemany(_ADD, [_row(reading) for reading in added])
            session.executemany(_PUT, [_row(reading) for reading in newest])

        self._database.write(work)

    def samples(self) -> list[Sample]:
        """All that is kept, by name."""
        with self._database.reading() as session:
            found = session.execute("select * from measures order by name, labels").fetchall()
        read = ((row["name"], _labels(row["labels"]), row["value"]) for row in found)
        return [Sample(name, labels, value) for name, labels, value in read if labels is not None]

    def open_tasks(self, now: int) -> list[OpenTasks]:
        """How many tasks are open, for each provider that has some."""
        with self._database.reading() as session:
            found = session.execute(_OPEN, (now, COUNTED)).fetchall()
        return [
            OpenTasks(row["provider"], row["tasks"], row["awaited"], row["overdue"])
            for row in found
        ]

    def counters(self) -> list[Counter]:
        """What was counted since the record began."""
        with self._database.reading() as session:
            found = session.execute("select * from counters order by name, provider").fetchall()
        return [Counter(row["name"], row["provider"], row["value"]) for row in found]

    def backlog(self, now: int, hooks: Collection[str] | None = None) -> Backlog:
        """How much waits to be delivered. `hooks`: the names in the hooks file, if known."""
        with self._database.reading() as session:
            dead = session.execute(_DEAD, (COUNTED,)).fetchone()["dead"]
            waiting = [(lane, count_due(session, lane.hook, now)) for lane in load_queues(session)]
        usable = {lane.hook for lane, _ in waiting if hooks is None or lane.hook in hooks}
        ready = [lane.ready_since(now) for lane, _ in waiting if lane.hook in usable]
        oldest = min((since for since in ready if since is not None), default=None)
        held = sum(count for lane, count in waiting if lane.hook not in usable or lane.is_held(now))
        return Backlog(sum(count for _, count in waiting), dead, oldest, held)

    def task_counts(self) -> list[TaskCount]:
        """Every task is in one of them."""
        with self._database.reading() as session:
            found = session.execute(_TASKS).fetchall()
        return [TaskCount(row["provider"], row["status"], int(row["value"])) for row in found]

    def delivery_counts(self) -> list[DeliveryCount]:
        """Every delivery is in one of them."""
        with self._database.reading() as session:
            found = session.execute(_DELIVERIES).fetchall()
        return [DeliveryCount(row["hook"], row["state"], int(row["value"])) for row in found]

    def hours(self, since: int) -> list[HourCount]:
        """What happened in this hour and later, oldest first; two days are kept."""
        with self._database.reading() as session:
            found = session.execute(_HOURS, (since,)).fetchall()
        return [
            HourCount(row["hour"], row["provider"], row["series"], row["bucket"], int(row["value"]))
            for row in found
        ]

    def last_callbacks(self) -> dict[str, int]:
        """When a callback, other than a byte-identical repeat, last came; by provider."""
        with self._database.reading() as session:
            found = session.execute(_LAST).fetchall()
        return {row["provider"]: row["last_at"] for row in found}

    def overdue_count(self, now: int) -> int:
        """How many tasks wait to be asked about, counted up to 1,000."""
        with self._database.reading() as session:
            row = session.execute(_OVERDUE, (now, OVERDUE_COUNTED)).fetchone()
        return int(row["overdue"])


def count(session: Session, name: str, provider: str) -> None:
    """One more, in the transaction of what is counted."""
    session.execute(_COUNT, (name, provider))


def _labels(text: str) -> tuple[str, ...] | None:
    """The values of the labels; None if the row is damaged."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(map(str, found)) if isinstance(found, list) else None


def _row(reading: Sample) -> tuple[str, str, float]:
    labels = json.dumps(reading.labels, ensure_ascii=False, separators=(",", ":"))
    return reading.name, labels, float(reading.value)


_ADD = """
insert into measures (name, labels, value) values (?, ?, ?)
on conflict (name, labels) do update set value = measures.value + excluded.value
"""

_PUT = """
insert into measures (name, labels, value) values (?, ?, ?)
on conflict (name, labels) do update set value = case
  when excluded.value > measures.value then excluded.value else measures.value end
"""

# Open tasks have a deadline until they end or are given up on; ended ones only while they are
# asked about once more.
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
select provider, status, sum(value) as value from task_counts group by provider, status
order by provider, status
"""

_DELIVERIES = """
select hook, state, sum(value) as value from delivery_counts group by hook, state
order by hook, state
"""

_HOURS = """
select hour, provider, series, bucket, sum(value) as value from hours where hour >= ?
group by hour, provider, series, bucket order by hour, provider, series, bucket
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
