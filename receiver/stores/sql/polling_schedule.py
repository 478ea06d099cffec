"""What has to be asked about, when, and what came of it."""

from __future__ import annotations

import statistics

from receiver.stores import rows
from receiver.stores.base import Counter, ProcessProblem
from receiver.stores.sql.locks import LOCK_TASK, Lock, locked
from receiver.stores.sql.session import Session, SqlStoreBase
from receiver.tasks import Task

DAY = 86_400_000  # ms


class Agenda(SqlStoreBase):
    """See `stores.base.Agenda`."""

    def overdue(self, now: int, ask_again_at: int, limit: int) -> list[Task]:
        deadline_at = self.next_deadline_at()
        if deadline_at is None or deadline_at > now:
            return []  # asked before any write: an idle poller costs no sync
        values = {"now": now, "again": ask_again_at, "limit": limit}
        found = self._write(
            lambda connection: connection.execute_locked(_OVERDUE, values).fetchall()
        )
        return [rows.task(row) for row in found]

    def ask_at(self, task_id: str, at: int | None) -> None:
        def work(connection: Session) -> None:
            connection.lock(LOCK_TASK, (task_id,))  # or a task that was just forgotten is missed
            connection.execute(_ASK_AT, (at, task_id))

        self._write(work)

    def put_off(self, task: Task, at: int | None) -> None:
        values = (at, task.id, task.deadline_at)
        self._write(lambda connection: connection.execute(_PUT_OFF, values))

    def next_deadline_at(self) -> int | None:
        with self.reading() as connection:
            row = connection.execute(_NEXT_DEADLINE).fetchone()
        return None if row is None else int(row["deadline_at"])

    def usual_duration(self, provider: str) -> int | None:
        with self.reading() as connection:
            found = connection.execute(_DURATIONS, (provider,)).fetchall()
        return int(statistics.median(row["took"] for row in found)) if found else None

    def pause(self, name: str, until: int) -> None:
        self._write(lambda connection: connection.execute(_PAUSE, (name, until)))

    def counters(self) -> list[Counter]:
        with self.reading() as connection:
            found = connection.execute("select * from counters order by name, provider").fetchall()
        return [Counter(row["name"], row["provider"], row["value"]) for row in found]

    def heartbeat(self, name: str, kind: str, now: int) -> None:
        def work(connection: Session) -> None:
            connection.execute(_HEARTBEAT, (name, kind, now))
            connection.execute("delete from processes where seen_at < ?", (now - DAY,))

        self._write(work)

    def seen(self, kind: str) -> int | None:
        with self.reading() as connection:
            row = connection.execute(
                "select max(seen_at) as seen_at from processes where kind = ?", (kind,)
            ).fetchone()
        return None if row["seen_at"] is None else int(row["seen_at"])

    def report_problem(self, name: str, kind: str, problem: str | None, now: int) -> None:
        self._write(lambda connection: connection.execute(_REPORT, (name, kind, now, problem)))

    def process_problems(self, since: int) -> list[ProcessProblem]:
        with self.reading() as connection:
            found = connection.execute(_PROBLEMS, (since,)).fetchall()
        return [
            ProcessProblem(row["name"], row["kind"], row["problem"], row["seen_at"])
            for row in found
        ]


def count(connection: Session, name: str, provider: str) -> None:
    """One more, in the transaction of what is counted."""
    connection.execute(_COUNT, (name, provider))


# A poller that takes tasks moves their deadlines, so that no other asks about them meanwhile. Tasks
# of an account whose requests are paused are left for later. `materialized`: PostgreSQL may run a
# subquery once for each task, and each run would skip the tasks locked so far and take the next.
_OVERDUE = locked(
    """
with found as materialized (
  select seq from tasks
  where deadline_at is not null and deadline_at <= :now
    and not exists (
      select 1 from pauses where name = tasks.provider || ':' || tasks.account and until > :now
    )
  order by deadline_at limit :limit {lock}
)
update tasks set deadline_at = :again, asked = asked + 1 where seq in (select seq from found)
returning *
""",
    Lock.SKIP_LOCKED,
)
_ASK_AT = """
update tasks set deadline_at = ? where id = ? and not exists (
  select 1 from forgotten where forgotten.task = tasks.seq
)
"""
# Only while the deadline is the one that the poller set when it took the task: what happened since
# (its end, or a new reason to ask) counts more.
_PUT_OFF = "update tasks set deadline_at = ? where id = ? and deadline_at = ?"
_NEXT_DEADLINE = """
select deadline_at from tasks where deadline_at is not null order by deadline_at limit 1
"""
# The latest twenty of the provider among the latest 200 tasks: bounded, however long the record.
_DURATIONS = """
select updated_at - created_at as took
from (select * from tasks order by seq desc limit 200) as latest
where provider = ? and status = 'succeeded' limit 20
"""
_PAUSE = """
insert into pauses (name, until) values (?, ?)
on conflict (name) do update set until = case
  when excluded.until > pauses.until then excluded.until else pauses.until end
"""
_COUNT = """
insert into counters (name, provider, value) values (?, ?, 1)
on conflict (name, provider) do update set value = counters.value + 1
"""
_REPORT = """
insert into processes (name, kind, seen_at, problem) values (?, ?, ?, ?)
on conflict (name) do update set seen_at = excluded.seen_at, problem = excluded.problem
"""
_PROBLEMS = """
select name, kind, problem, seen_at from processes
where problem is not null and seen_at > ? order by kind, name limit 100
"""
_HEARTBEAT = """
insert into processes (name, kind, seen_at) values (?, ?, ?)
on conflict (name) do update set seen_at = excluded.seen_at
"""
