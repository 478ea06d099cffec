"""Erases payloads past their retention period.

`personal_data.py` says which columns are erased.
"""

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
    """One step of `prune`. `next`: where the next one begins; None: done."""

    callbacks: int
    bytes: int  # of these
    next: tuple[int, int] | None
    inputs: int = 0  # pictures that were sent
    tasks: tuple[str, ...] = ()  # whose payloads were erased


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
        """Erase bodies, headers, answers and thumbnails of tasks that ended before that instant.

        Looks at up to `limit` callbacks. Keys, moves and deliveries stay: an old callback that
        comes again is a duplicate. A task with a delivery that is not delivered is left; with
        `dead_too` dead letters do not hold it.
        """
        wanted = {"older": older_than, "at": (after or (0, 0))[0], "id": (after or (0, 0))[1]}

        def work(session: Session) -> PruneStep:
            sql = _KEPT.format(ripe=prunable_if(dead_too=dead_too))
            found = session.execute(sql, {**wanted, "limit": limit}).fetchall()
            ripe = [row for row in found if row["is_ripe"]]
            for row in ripe:
                session.execute(personal_data.PRUNE_CALLBACK, {"id": row["id"], "nothing": b""})
            tasks = {row["task"]: row["task_id"] for row in ripe if row["task"] is not None}
            self._empty(session, tasks)
            if ripe:
                self._database.note_erasure(session)
            following = (found[-1]["received_at"], found[-1]["id"]) if found else None
            size = sum(row["size"] for row in ripe)
            going_on = following if len(found) == limit else None
            return PruneStep(len(ripe), size, going_on, tasks=tuple(tasks.values()))

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
        """Erase the texts of tasks that `prune` would prune, looking at up to `limit` rows."""
        wanted = {"older": older_than, "after": after, "limit": limit}
        sql = _TEXTS[of].format(ripe=prunable_if(dead_too=dead_too))
        with self._database.reading() as session:
            found = session.execute(sql, wanted).fetchall()
        ripe = [row["task"] for row in found if row["is_ripe"]]

        def work(session: Session) -> None:
            self._empty(session, ripe)
            self._database.note_erasure(session)

        if ripe:
            self._database.write(work)
        return RepairStep(len(ripe), found[-1]["id"] if len(found) == limit else None)

    def prune_inputs(
        self, older_than: int, *, after: int = 0, limit: int = 200, dead_too: bool = False
    ) -> RepairStep:
        """Erase those of up to `limit` tasks, by row key, those after `after`, that `prune` would
        let go; how many pictures that were.

        A task may end without a message that `prune` could find it by.
        """
        wanted = {"older": older_than, "after": after, "limit": limit}
        with self._database.reading() as session:
            sql = _KEPT_INPUTS.format(ripe=prunable_if(dead_too=dead_too))
            found = session.execute(sql, wanted).fetchall()
        ripe = [row["task"] for row in found if row["is_ripe"]]

        def work(session: Session) -> int:
            self._database.note_erasure(session)
            return sum(session.execute(_DELETE, (task,)).rowcount for task in ripe)

        # The rows are in the order of creation: behind a young task there are only younger ones.
        goes_on = len(found) == limit and found[-1]["is_old"]
        return RepairStep(
            self._database.write(work) if ripe else 0, found[-1]["task"] if goes_on else None
        )

    def prune_rows(self, older_than: int) -> int:
        """Delete old rows that belong to no task: rejections, alerts, test events, and
        idempotency keys that are no longer needed. Returns how many.
        """

        def work(session: Session) -> int:
            deleted = 0
            for name, table in personal_data.TABLES.items():
                if table.dated_by:
                    # A younger key or alert may still be needed: the same request must not be paid
                    # twice, and people must still be notified.
                    last = now_ms() - KEPT_FOR if name in NEEDED_FOR_A_DAY else older_than
                    sql = f"delete from {name} where {table.dated_by} < ?"  # noqa: S608
                    deleted += session.execute(sql, (min(older_than, last),)).rowcount
            if deleted:
                self._database.note_erasure(session)
            return deleted

        return self._database.write(work)

    def _empty(self, session: Session, tasks: Iterable[int]) -> None:
        """Erase what `prune` erases of these tasks, except for their callbacks."""
        for task in tasks:
            values = {"task": task, "nothing": b"", "erased": personal_data.PRUNED}
            for sql in (*personal_data.ERASE_SAID, *personal_data.PRUNE_TASK):
                session.execute(sql, values)


def prunable_if(*, dead_too: bool) -> str:
    """The condition under which the payloads of a task `t` may go, as SQL."""
    return _RIPE.format(hold="'pending', 'claimed'" + ("" if dead_too else ", 'dead'"))


_RIPE = """
  (t.status in ('succeeded', 'failed') or t.given_up_at is not null)
  and t.updated_at < :older and not exists (
    select 1 from transitions tr join deliveries d on d.transition = tr.id
    where tr.task = t.seq and d.state in ({hold})
  )
"""

_KEPT = """
select c.id, c.task, t.id as task_id, c.received_at, length(c.body) + length(c.headers) as size,
  c.task is null or ({ripe}) as is_ripe
from callbacks c left join tasks t on t.seq = c.task
where length(c.body) > 0 and c.received_at < :older and (c.received_at, c.id) > (:at, :id)
order by c.received_at, c.id limit :limit
"""

# Texts whose task may have no callback with a body; each is read along a partial index.
_TEXTS = {
    TextKind.ANSWERS: """
select a.delivery as id, t.seq as task, ({ripe}) as is_ripe
from attempts a join deliveries d on d.id = a.delivery join transitions tr on tr.id = d.transition
join tasks t on t.seq = tr.task
where a.answer <> '' and a.ended_at < :older and a.delivery > :after
order by a.delivery limit :limit
""",
    TextKind.REASONS: """
select t.seq as id, t.seq as task, ({ripe}) as is_ripe from tasks t
where t.reason is not null and t.updated_at < :older and t.seq > :after
order by t.seq limit :limit
""",
}

_DELETE = "delete from inputs where task = ?"

_KEPT_INPUTS = """
select i.task, t.created_at < :older as is_old, ({ripe}) as is_ripe
from (
  select distinct task from inputs where task > :after order by task limit :limit
) i join tasks t on t.seq = i.task
order by i.task
"""
