"""Which tasks to query, and when."""

from __future__ import annotations

import statistics

from receiver.stores.sql import rows
from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.locks import LOCK_TASK, Lock, locked
from receiver.tasks import Task


class Polling(Component):
    """Schedules the queries of tasks."""

    def claim_overdue(self, now: int, ask_again_at: int, limit: int) -> list[Task]:
        """Take up to `limit` tasks whose deadline has passed; each counts as asked.

        No other poller gets them before `ask_again_at`. Tasks of an account (`provider:account`)
        that is paused are left.
        """
        deadline_at = self.next_deadline_at()
        if deadline_at is None or deadline_at > now:
            return []  # asked before any write: an idle poller costs no sync
        values = {"now": now, "again": ask_again_at, "limit": limit}
        found = self._database.write(
            lambda session: session.execute_locked(_OVERDUE, values).fetchall()
        )
        return [rows.task(row) for row in found]

    def query_at(self, task_id: str, at: int | None) -> None:
        """Ask the provider about this task at that instant; None: not any more.

        A forgotten task is not asked about.
        """

        def work(session: Session) -> None:
            session.lock(LOCK_TASK, (task_id,))  # or a task that was just forgotten is missed
            session.execute(_ASK_AT, (at, task_id))

        self._database.write(work)

    def postpone(self, task: Task, at: int | None) -> None:
        """Ask about a task that `overdue` gave again at that instant, or not any more.

        Does nothing if its deadline was moved meanwhile: it ended, or there is a reason to ask.
        """
        values = (at, task.id, task.deadline_at)
        self._database.write(lambda session: session.execute(_PUT_OFF, values))

    def next_deadline_at(self) -> int | None:
        """When the next task becomes overdue; None if none will."""
        with self._database.reading() as session:
            row = session.execute(_NEXT_DEADLINE).fetchone()
        return None if row is None else int(row["deadline_at"])

    def usual_duration(self, provider: str) -> int | None:
        """How long its latest tasks took from creation to success: the median, in ms."""
        with self._database.reading() as session:
            found = session.execute(_DURATIONS, (provider,)).fetchall()
        return int(statistics.median(row["took"] for row in found)) if found else None

    def pause(self, name: str, until: int) -> None:
        """Leave alone what has this name until that instant."""
        self._database.write(lambda session: session.execute(_PAUSE, (name, until)))


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
