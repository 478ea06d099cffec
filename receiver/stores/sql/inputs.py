"""Small copies of the pictures that were sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from receiver.errors import NotFound
from receiver.stores import rows
from receiver.stores.sql.locks import LOCK_TASK
from receiver.stores.sql.retention import ripe_if
from receiver.stores.sql.session import Session, SqlStoreBase
from receiver.stores.upkeep import RepairStep


class Inputs(SqlStoreBase):
    """See `stores.inputs.Inputs`."""

    def keep_inputs(self, task_id: str, thumbnails: Mapping[str, bytes]) -> None:
        def work(connection: Session) -> None:
            # The lock comes first, so that `_KEEP` sees a task that was forgotten meanwhile.
            if connection.execute_locked(LOCK_TASK, (task_id,)).fetchone() is None:
                raise NotFound(f"no task {task_id}")
            for name, thumbnail in thumbnails.items():
                connection.execute(_KEEP, (name, thumbnail, task_id))

        self._write(work)

    def inputs(self, task_id: str) -> dict[str, bytes]:
        with self.reading() as connection:
            found = connection.execute(_INPUTS, (task_id,)).fetchall()
        return {row["name"]: bytes(row["thumbnail"]) for row in found}

    def names_of_inputs(self, task_ids: Sequence[str]) -> dict[str, list[str]]:
        if not task_ids:
            return {}
        found: dict[str, list[str]] = {}
        with self.reading() as connection:
            sql = _NAMES.format(tasks=rows.any_of("t.id", task_ids))
            for row in connection.execute(sql, list(task_ids)):
                found.setdefault(row["task_id"], []).append(row["name"])
        return found

    def prune_inputs(
        self, older_than: int, *, after: int = 0, limit: int = 200, dead_too: bool = False
    ) -> RepairStep:
        wanted = {"older": older_than, "after": after, "limit": limit}
        with self.reading() as connection:  # most are young: nobody waits while they are looked at
            sql = _KEPT.format(ripe=ripe_if(dead_too=dead_too))
            found = connection.execute(sql, wanted).fetchall()
        ripe = [row["task"] for row in found if row["is_ripe"]]

        def work(connection: Session) -> int:
            self._note_erasure(connection)
            return sum(connection.execute(_DELETE, (task,)).rowcount for task in ripe)

        # The rows are in the order of creation: behind a young task there are only younger ones.
        goes_on = len(found) == limit and found[-1]["is_old"]
        return RepairStep(self._write(work) if ripe else 0, found[-1]["task"] if goes_on else None)


_DELETE = "delete from inputs where task = ?"
_KEEP = """
insert into inputs (task, name, thumbnail)
select seq, ?, ? from tasks
where id = ? and not exists (select 1 from forgotten where forgotten.task = tasks.seq)
on conflict (task, name) do update set thumbnail = excluded.thumbnail
"""
_INPUTS = """
select i.name, i.thumbnail from inputs i join tasks t on t.seq = i.task
where t.id = ? order by i.name
"""
# In this order they were sent: human, then what is worn.
_NAMES = """
select t.id as task_id, i.name from inputs i join tasks t on t.seq = i.task
where {tasks} order by t.id, case i.name when 'human' then 0 else 1 end, i.name
"""
_KEPT = """
select i.task, t.created_at < :older as is_old, ({ripe}) as is_ripe
from (
  select distinct task from inputs where task > :after order by task limit :limit
) i join tasks t on t.seq = i.task
order by i.task
"""
