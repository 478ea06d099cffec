"""The schedule of queries about tasks at their providers."""

from __future__ import annotations

from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.locks import LOCK_TASK, Lock, locked
from receiver.stores.sql.rows import from_row
from receiver.tasks import Task


class Polling(Component):
    """Schedules the queries of tasks."""

    def claim_overdue(self, now: int, ask_again_at: int, limit: int) -> list[Task]:
        """Claim and return up to `limit` tasks whose deadline has passed; counts a query for each.

        No other poller can claim them before `ask_again_at`. Tasks of a paused account
        (`provider:account`) are skipped.
        """
        deadline_at = self.next_deadline_at()
        if deadline_at is None or deadline_at > now:
            return []  # an idle poller only reads, so it does not sync the disk
        values = {"now": now, "again": ask_again_at, "limit": limit}
        claimed = self._database.write(
            lambda session: session.execute_locked(_OVERDUE, values).fetchall()
        )
        return [from_row(Task, row) for row in claimed]

    def query_at(self, task_id: str, at: int | None) -> None:
        """Make this task due for a query at that time; None: never.

        Does nothing for a forgotten task.
        """

        def work(session: Session) -> None:
            session.lock(
                LOCK_TASK, (task_id,)
            )  # so that `_SET_DEADLINE` sees whether the task was just forgotten
            session.execute(_SET_DEADLINE, (at, task_id))

        self._database.write(work)

    def postpone(self, task: Task, at: int | None) -> None:
        """Make a claimed task due for its next query at that time; None: never.

        Does nothing if its deadline has changed since it was claimed.
        """
        values = (at, task.id, task.deadline_at)
        self._database.write(lambda session: session.execute(_POSTPONE, values))

    def next_deadline_at(self) -> int | None:
        """Return when the next task becomes overdue; None if no task will."""
        row = self._row(_NEXT_DEADLINE)
        return None if row is None else int(row["deadline_at"])

    def usual_duration(self, provider: str) -> int | None:
        """Return the median duration of its latest successful tasks in ms; None without any."""
        from statistics import median  # noqa: PLC0415 - slow, and only the poller needs it

        found = self._rows(_DURATIONS, (provider,))
        return int(median(row["duration"] for row in found)) if found else None

    def pause(self, name: str, until: int) -> None:
        """Pause the requests of an account (`provider:account`) until that time."""
        self._database.write(lambda session: session.execute(_PAUSE, (name, until)))


# A poller moves the deadlines of the tasks that it claims, so that no other poller queries them.
# `materialized`: otherwise, PostgreSQL may run the subquery once for each task, and each run would
# skip the tasks that are locked so far and select the next ones.
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

_SET_DEADLINE = """
update tasks set deadline_at = ? where id = ? and not exists (
  select 1 from forgotten where forgotten.task = tasks.seq
)
"""

# Only if the deadline is still the one that the poller set: the task may have ended since, or may
# have become due for another reason.
_POSTPONE = "update tasks set deadline_at = ? where id = ? and deadline_at = ?"

_NEXT_DEADLINE = """
select deadline_at from tasks where deadline_at is not null order by deadline_at limit 1
"""

# At most 20 of the latest 200 tasks, so that the cost does not depend on the size of the record.
_DURATIONS = """
select updated_at - created_at as duration
from (select * from tasks order by seq desc limit 200) as latest
where provider = ? and status = 'succeeded' limit 20
"""

_PAUSE = """
insert into pauses (name, until) values (?, ?)
on conflict (name) do update set until = case
  when excluded.until > pauses.until then excluded.until else pauses.until end
"""
