"""Erases payloads past their retention period; `personal_data.py` lists the columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from receiver.clock import now_ms
from receiver.stores.sql import personal_data
from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.idempotency import KEPT_FOR
from receiver.stores.sql.repair import RepairStep


@dataclass(frozen=True, slots=True)
class PruneStep:
    """One step of `prune`. `next` is the start of the next step; None after the last one."""

    callbacks: int
    bytes: int  # the size of these callbacks
    next: tuple[int, int] | None
    inputs: int = 0  # thumbnails of the inputs of tasks
    tasks: tuple[str, ...] = ()  # the tasks whose payloads were erased


class TextKind(StrEnum):
    """Texts that `prune` erases although their task may have no callback with a body."""

    ANSWERS = "answers"  # of hooks
    REASONS = "reasons"  # of failed tasks


NEEDED_FOR_A_DAY = ("idempotency_keys", "alerts")


class Retention(Component):
    """Erases payloads past their retention period."""

    def prune(
        self,
        older_than: int,
        *,
        after: tuple[int, int] | None = None,
        limit: int = 200,
        dead_too: bool = False,
    ) -> PruneStep:
        """Erase bodies, headers, answers and thumbnails of tasks that ended before that time.

        Reads up to `limit` callbacks. Keys, transitions and deliveries stay, so that a repeated old
        callback is a duplicate. Skips tasks with a delivery that is pending, claimed or, without
        `dead_too`, dead.
        """
        wanted = {"older": older_than, "at": (after or (0, 0))[0], "id": (after or (0, 0))[1]}

        def work(session: Session) -> PruneStep:
            sql = _CALLBACKS.format(prunable=prunable_if(dead_too=dead_too))
            found = session.execute(sql, {**wanted, "limit": limit}).fetchall()
            prunable = [row for row in found if row["is_prunable"]]
            for row in prunable:
                session.execute(personal_data.PRUNE_CALLBACK, {"id": row["id"], "nothing": b""})
            tasks = {row["task"]: row["task_id"] for row in prunable if row["task"] is not None}
            self._empty(session, tasks)
            if prunable:
                self._database.note_erasure(session)
            following = (found[-1]["received_at"], found[-1]["id"]) if found else None
            size = sum(row["size"] for row in prunable)
            following = following if len(found) == limit else None
            return PruneStep(len(prunable), size, following, tasks=tuple(tasks.values()))

        return self._database.write(work)

    def prune_texts(
        self,
        of: TextKind,
        older_than: int,
        *,
        after: int = 0,
        limit: int = 200,
        dead_too: bool = False,
    ) -> RepairStep:
        """Erase texts of tasks that have ended as for `prune`. Reads up to `limit` rows."""
        wanted = {"older": older_than, "after": after, "limit": limit}
        sql = _TEXTS[of].format(prunable=prunable_if(dead_too=dead_too))
        found = self._rows(sql, wanted)
        prunable = [row["task"] for row in found if row["is_prunable"]]

        def work(session: Session) -> None:
            self._empty(session, prunable)
            self._database.note_erasure(session)

        if prunable:
            self._database.write(work)
        return RepairStep(len(prunable), found[-1]["id"] if len(found) == limit else None)

    def prune_inputs(
        self, older_than: int, *, after: int = 0, limit: int = 200, dead_too: bool = False
    ) -> RepairStep:
        """Erase the inputs of tasks that have ended as for `prune`; return how many were erased.

        Reads up to `limit` tasks after the row key `after`. This is a separate step because a task
        may end without a callback by which `prune` finds it.
        """
        wanted = {"older": older_than, "after": after, "limit": limit}
        found = self._rows(_KEPT_INPUTS.format(prunable=prunable_if(dead_too=dead_too)), wanted)
        prunable = [row["task"] for row in found if row["is_prunable"]]

        def work(session: Session) -> int:
            self._database.note_erasure(session)
            return sum(session.execute(_DELETE, (task,)).rowcount for task in prunable)

        # Row keys are in the order of creation, so the tasks after a recent one are also recent.
        has_more = len(found) == limit and found[-1]["is_old"]
        return RepairStep(
            self._database.write(work) if prunable else 0, found[-1]["task"] if has_more else None
        )

    def prune_rows(self, older_than: int) -> int:
        """Delete old rejections, alerts, test events, idempotency keys and pacing; return how many.

        Idempotency keys and alerts are needed for a day.
        """

        def work(session: Session) -> int:
            deleted = 0
            for name, table in personal_data.TABLES.items():
                if table.dated_by:
                    # Within a day, the same request must not be paid for twice, and people must be
                    # notified of an alert.
                    last = now_ms() - KEPT_FOR if name in NEEDED_FOR_A_DAY else older_than
                    sql = f"delete from {name} where {table.dated_by} < ?"  # noqa: S608
                    deleted += session.execute(sql, (min(older_than, last),)).rowcount
            if deleted:
                self._database.note_erasure(session)
            return deleted

        return self._database.write(work)

    def _empty(self, session: Session, tasks: Iterable[int]) -> None:
        """Erase the personal data of these tasks, except for their callbacks and inputs."""
        for task in tasks:
            values = {"task": task, "nothing": b"", "erased": personal_data.PRUNED}
            for sql in (*personal_data.ERASE_SAID, *personal_data.PRUNE_TASK):
                session.execute(sql, values)


def prunable_if(*, dead_too: bool) -> str:
    """Return the SQL condition under which the payloads of a task `t` may be erased."""
    return _PRUNABLE.format(blocking="'pending', 'claimed'" + ("" if dead_too else ", 'dead'"))


_PRUNABLE = """
  (t.status in ('succeeded', 'failed') or t.given_up_at is not null)
  and t.updated_at < :older and not exists (
    select 1 from transitions tr join deliveries d on d.transition = tr.id
    where tr.task = t.seq and d.state in ({blocking})
  )
"""

_CALLBACKS = """
select c.id, c.task, t.id as task_id, c.received_at, length(c.body) + length(c.headers) as size,
  c.task is null or ({prunable}) as is_prunable
from callbacks c left join tasks t on t.seq = c.task
where length(c.body) > 0 and c.received_at < :older and (c.received_at, c.id) > (:at, :id)
order by c.received_at, c.id limit :limit
"""

# The texts of tasks that may have no callback with a body, each read along a partial index.
_TEXTS = {
    TextKind.ANSWERS: """
select a.delivery as id, t.seq as task, ({prunable}) as is_prunable
from attempts a join deliveries d on d.id = a.delivery join transitions tr on tr.id = d.transition
join tasks t on t.seq = tr.task
where a.answer <> '' and a.ended_at < :older and a.delivery > :after
order by a.delivery limit :limit
""",
    TextKind.REASONS: """
select t.seq as id, t.seq as task, ({prunable}) as is_prunable from tasks t
where t.reason is not null and t.updated_at < :older and t.seq > :after
order by t.seq limit :limit
""",
}

_DELETE = "delete from inputs where task = ?"

_KEPT_INPUTS = """
select i.task, t.created_at < :older as is_old, ({prunable}) as is_prunable
from (
  select distinct task from inputs where task > :after order by task limit :limit
) i join tasks t on t.seq = i.task
order by i.task
"""
