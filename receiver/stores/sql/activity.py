"""What happened last."""

from __future__ import annotations

from collections.abc import Callable

from receiver.stores.activity import Activity, ActivityKind, Key
from receiver.stores.rows import Row
from receiver.stores.sql.session import LAST, SqlStoreBase


class Happenings(SqlStoreBase):
    """See `stores.happenings.Happenings`."""

    def newest(
        self, kind: ActivityKind, *, before: Key | None = None, limit: int = 200
    ) -> list[Activity]:
        sql, read = _OF[kind]
        start = (LAST,) if before is None else before
        with self.reading() as connection:
            return [read(row) for row in connection.execute(sql, (*start, limit))]


def _callback(row: Row) -> Activity:
    what = f"{row['source']}, {row['size']} bytes"
    said = f"{what}: {row['problem']}" if row["problem"] else what
    return Activity(ActivityKind.CALLBACK, (row["id"],), *_about(row), row["outcome"], said=said)


def _move(row: Row) -> Activity:
    said = f"rests on: {row['trust']}" + (", corrected" if row["corrected"] else "")
    return Activity(ActivityKind.MOVE, (row["id"],), *_about(row), row["status"], said=said)


def _attempt(row: Row) -> Activity:
    about, outcome = _about(row), row["outcome"]
    told = (row["status"], row["hook"], row["answer"])
    return Activity(ActivityKind.ATTEMPT, (row["id"],), *about, outcome, *told)


def _about(row: Row) -> tuple[int, str | None, str, str | None, str | None]:
    return row["at"], row["task_id"], row["provider"], row["account"], row["reference"]


_CALLBACKS = """
select c.id, c.received_at as at, c.source, c.outcome, c.problem, length(c.body) as size,
  c.provider, t.id as task_id, t.account, t.reference
from callbacks c left join tasks t on t.seq = c.task
where c.id < ? order by c.id desc limit ?
"""
_MOVES = """
select tr.id, tr.recorded_at as at, tr.status, tr.trust, tr.corrected,
  t.provider, t.id as task_id, t.account, t.reference
from transitions tr join tasks t on t.seq = tr.task
where tr.id < ? order by tr.id desc limit ?
"""
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
