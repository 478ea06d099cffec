"""Recent activity: events of tasks, rejected requests, and running processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter

from receiver.deliveries import GIVEN_UP
from receiver.stores.sql.database import LAST, Component, Session
from receiver.stores.sql.rows import Row, from_row
from receiver.tasks import NEVER_REACHED, Trust

Key = tuple[int, ...]


class ActivityKind(StrEnum):
    """The kinds of events in the activity of tasks."""

    CALLBACK = "callback"  # a message of a provider was stored
    MOVE = "move"  # a transition was recorded
    ATTEMPT = "attempt"  # an attempt at a delivery has ended


@dataclass(frozen=True, slots=True)
class Activity:
    """One event. Task, account and reference are None for a message without a task."""

    kind: ActivityKind
    key: Key  # the position among the events of this kind
    at: int  # integer milliseconds UTC
    task_id: str | None
    provider: str
    account: str | None
    reference: str | None
    outcome: str  # of a callback or an attempt; for a transition, the new status
    status: str | None = None  # of the event that an attempt delivered
    hook: str | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A request to the callback routes that was rejected. `path` contains no token."""

    at: int
    address: str
    reason: str
    method: str
    path: str
    count: int = 1  # how many similar requests were merged into this one


@dataclass(frozen=True, slots=True)
class ProcessProblem:
    """The problem of a running process. `kind` is for example `worker`."""

    name: str
    kind: str
    problem: str
    seen_at: int


GONE_AFTER = 30_000  # ms without a heartbeat; a running process sends one every 10 s

REJECTIONS_KEPT = 1_000  # rows

DAY = 86_400_000  # ms


class ActivityLog(Component):
    """Reads recent activity, and stores rejected requests and heartbeats of processes."""

    def newest(
        self, kind: ActivityKind, *, before: Key | None = None, limit: int = 200
    ) -> list[Activity]:
        """Return the events of this kind with the greatest keys below `before`, greatest first.

        In PostgreSQL, a smaller key can appear later than a greater one, because transactions
        commit in any order. A byte-identical repeat of a callback is counted, but does not appear.
        """
        sql, read = _OF[kind]
        start = (LAST,) if before is None else before
        return [read(row) for row in self._rows(sql, (*start, limit))]

    def add_rejections(self, found: Sequence[Rejection]) -> None:
        """Store rejections, and delete all but the newest 1,000."""
        newest = [_values_of_rejection(rejection) for rejection in found[-REJECTIONS_KEPT:]]

        def work(session: Session) -> None:
            session.executemany(_INSERT_REJECTION, newest)
            session.execute(_DELETE_OLD_REJECTIONS, (REJECTIONS_KEPT,))

        self._database.write(work)

    def rejections(self, limit: int = 50) -> list[Rejection]:
        """Return the newest rejections, newest first."""
        return [from_row(Rejection, row) for row in self._rows(_NEWEST_REJECTIONS, (limit,))]

    def heartbeat(self, name: str, kind: str, now: int) -> None:
        """Record that this process is running; fails if the store cannot be written."""

        def work(session: Session) -> None:
            session.execute(_HEARTBEAT, (name, kind, now))
            session.execute("delete from processes where seen_at < ?", (now - DAY,))

        self._database.write(work)

    def report_listeners(self, name: str, listeners: int, now: int) -> None:
        """Store the number of listeners of this process, which counts for GONE_AFTER."""
        values = (f"{name}:listeners", "listeners", now, listeners)
        self._database.write(lambda session: session.execute(_REPORT_LISTENERS, values))

    def listeners(self, now: int) -> int:
        """Return the number of listeners of all running processes."""
        row = self._row(_LISTENERS, (now - GONE_AFTER,))
        return int(row["listeners"])

    def last_seen(self, kind: str) -> int | None:
        """Return when a process of this kind last sent a heartbeat; None if none did."""
        row = self._row("select max(seen_at) as seen_at from processes where kind = ?", (kind,))
        return None if row["seen_at"] is None else int(row["seen_at"])

    def report_problem(self, name: str, kind: str, problem: str | None, now: int) -> None:
        """Store the problem of this process, or None if it has none, with a heartbeat."""
        self._database.write(lambda session: session.execute(_REPORT, (name, kind, now, problem)))

    def process_problems(self, since: int) -> list[ProcessProblem]:
        """Return the problems of processes that sent a heartbeat after that time."""
        return [from_row(ProcessProblem, row) for row in self._rows(_PROBLEMS, (since,))]


def _callback(row: Row) -> Activity:
    said = f"{row['source']}, {row['size']} bytes"
    if row["problem"]:
        said += f": {row['problem']}"
    return Activity(ActivityKind.CALLBACK, (row["id"],), *_about(row), row["outcome"], said=said)


def _move(row: Row) -> Activity:
    said = Trust(row["trust"]).text if row["trust"] else ""
    said += ", corrected" if row["corrected"] else ""
    return Activity(ActivityKind.MOVE, (row["id"],), *_about(row), row["status"], said=said)


def _attempt(row: Row) -> Activity:
    delivery = (row["status"], row["hook"], row["answer"])
    return Activity(ActivityKind.ATTEMPT, (row["id"],), *_about(row), row["outcome"], *delivery)


def _about(row: Row) -> tuple[int, str | None, str, str | None, str | None]:
    return row["at"], row["task_id"], row["provider"], row["account"], row["reference"]


_CALLBACKS = """
select c.id, c.received_at as at, c.source, c.outcome, c.problem, length(c.body) as size,
  c.provider, t.id as task_id, t.account, t.reference
from callbacks c left join tasks t on t.seq = c.task
where c.id < ? order by c.id desc limit ?
"""

# The trust is null for an action of our own, as in `receiver.deliveries.evidence`.
_MOVES = f"""
select tr.id, tr.recorded_at as at, tr.status, tr.corrected,
  case when tr.status in ('created', '{GIVEN_UP}') or (
    tr.status = 'failed' and t.reason = '{NEVER_REACHED}'
    and t.provider_task_id is null and t.callback_task_id is null
  ) then null else tr.trust end as trust,
  t.provider, t.id as task_id, t.account, t.reference
from transitions tr join tasks t on t.seq = tr.task
where tr.id < ? order by tr.id desc limit ?
"""  # noqa: S608 - contains no input

_ATTEMPTS = """
select a.id, a.ended_at as at, a.outcome, a.answer, d.hook, tr.status,
  t.provider, t.id as task_id, t.account, t.reference
from attempts a join deliveries d on d.id = a.delivery
join transitions tr on tr.id = d.transition join tasks t on t.seq = tr.task
where a.id < ? order by a.id desc limit ?
"""

_OF: dict[ActivityKind, tuple[str, Callable[[Row], Activity]]] = {
    ActivityKind.CALLBACK: (_CALLBACKS, _callback),
    ActivityKind.MOVE: (_MOVES, _move),
    ActivityKind.ATTEMPT: (_ATTEMPTS, _attempt),
}

_INSERT_REJECTION = """
insert into rejections (at, address, reason, method, path, count) values (?, ?, ?, ?, ?, ?)
"""

_DELETE_OLD_REJECTIONS = "delete from rejections where id <= (select max(id) from rejections) - ?"

_NEWEST_REJECTIONS = "select * from rejections order by id desc limit ?"


_values_of_rejection = attrgetter("at", "address", "reason", "method", "path", "count")

_REPORT = """
insert into processes (name, kind, seen_at, problem) values (?, ?, ?, ?)
on conflict (name) do update set seen_at = excluded.seen_at, problem = excluded.problem
"""

_REPORT_LISTENERS = """
insert into processes (name, kind, seen_at, listeners) values (?, ?, ?, ?)
on conflict (name) do update set seen_at = excluded.seen_at, listeners = excluded.listeners
"""

_LISTENERS = """
select coalesce(sum(listeners), 0) as listeners from processes
where kind = 'listeners' and seen_at > ?
"""

_PROBLEMS = """
select name, kind, problem, seen_at from processes
where problem is not null and seen_at > ? order by kind, name limit 100
"""

_HEARTBEAT = """
insert into processes (name, kind, seen_at) values (?, ?, ?)
on conflict (name) do update set seen_at = excluded.seen_at
"""
