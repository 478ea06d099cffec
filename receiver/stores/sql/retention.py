"""What is let go: payloads after their time, and everything of a task on request."""

from __future__ import annotations

from receiver.endpoints import SAID_KEPT
from receiver.errors import NotFound
from receiver.stores import rows
from receiver.stores.sql.locks import LOCK_TASK
from receiver.stores.sql.session import Rooms, Session
from receiver.stores.upkeep import Erasure, Pruned

ERASED = "(erased: the task was forgotten)"
GONE = '{"title": "Gone", "status": 410, "detail": "The task was forgotten."}'


class Retention(Rooms):
    """See `stores.upkeep.Retention`."""

    def prune(
        self,
        older_than: int,
        *,
        after: tuple[int, int] | None = None,
        limit: int = 200,
        dead_too: bool = False,
    ) -> Pruned:
        wanted = {"older": older_than, "at": (after or (0, 0))[0], "id": (after or (0, 0))[1]}

        def work(connection: Session) -> Pruned:
            sql = _KEPT.format(ripe=ripe_if(dead_too=dead_too))
            found = connection.execute(sql, {**wanted, "limit": limit}).fetchall()
            ripe = [row for row in found if row["is_ripe"]]
            for row in ripe:
                connection.execute(_EMPTY_CALLBACK, (b"", row["id"]))
            for task in {row["task"] for row in ripe if row["task"] is not None}:
                connection.execute(_EMPTY_ATTEMPTS, (task,))
                connection.execute(_EMPTY_THUMBNAILS, (task,))
            following = (found[-1]["received_at"], found[-1]["id"]) if found else None
            size = sum(row["size"] for row in ripe)
            return Pruned(len(ripe), size, following if len(found) == limit else None)

        return self._write(work)

    def give_back(self, pages: int) -> int:
        """See `stores.upkeep.Retention`; each database has its own way."""
        raise NotImplementedError

    def close_task(self, task_id: str, now: int) -> Erasure:
        def work(connection: Session) -> Erasure:
            task = _seq(connection, task_id)
            connection.execute(_CLOSE, (task, now))
            connection.execute("update tasks set deadline_at = null where seq = ?", (task,))
            connection.execute(_CANCEL, (now, task))
            running = connection.execute(_RUNNING, (task,)).fetchone()["running"]
            files = connection.execute(_FILES, (task,)).fetchall()
            return Erasure(task_id, running, tuple(map(rows.file, files)))

        return self._write(work)

    def erase(self, task_id: str, now: int) -> None:
        def work(connection: Session) -> None:
            task = _seq(connection, task_id)
            connection.execute(_EMPTY_CALLBACKS, (b"", task))
            for table in ("endpoints", "alerts"):  # while the answers are there to compare with
                connection.execute(_EMPTY_SAID.format(table=table), (ERASED, task))
            for sql in (_EMPTY_ATTEMPTS, _DELETE_FILES, DELETE_INPUTS, _EMPTY_TASK):
                connection.execute(sql, (task,))
            connection.execute(_EMPTY_ANSWERS, (GONE, task_id))
            connection.execute("update forgotten set erased_at = ? where task = ?", (now, task))

        self._write(work)
        self.give_back(0)  # the log holds what was erased until it is written back


def ripe_if(*, dead_too: bool) -> str:
    """The condition under which the payloads of a task `t` may go, as SQL."""
    return _RIPE.format(hold="'pending', 'claimed'" + ("" if dead_too else ", 'dead'"))


def _seq(connection: Session, task_id: str) -> int:
    row = connection.execute_locked(LOCK_TASK, (task_id,)).fetchone()
    if row is None:
        raise NotFound(f"no task {task_id}")
    return int(row["seq"])


_RIPE = """
  (t.status in ('succeeded', 'failed') or t.given_up_at is not null)
  and t.updated_at < :older and not exists (
    select 1 from transitions tr join deliveries d on d.transition = tr.id
    where tr.task = t.seq and d.state in ({hold})
  )
"""
_KEPT = """
select c.id, c.task, c.received_at, length(c.body) + length(c.headers) as size,
  c.task is null or ({ripe}) as is_ripe
from callbacks c left join tasks t on t.seq = c.task
where length(c.body) > 0 and c.received_at < :older and (c.received_at, c.id) > (:at, :id)
order by c.received_at, c.id limit :limit
"""
_EMPTY_CALLBACK = "update callbacks set body = ?, headers = '{}', problem = null where id = ?"
_EMPTY_CALLBACKS = "update callbacks set body = ?, headers = '{}', problem = null where task = ?"
_EMPTY_ATTEMPTS = """
update attempts set answer = '' where delivery in (
  select d.id from deliveries d join transitions tr on tr.id = d.transition where tr.task = ?
)
"""
# An endpoint and its alerts repeat the beginning of the last answer, which may name the customer.
_EMPTY_SAID = f"""
update {{table}} set said = ? where said <> '' and exists (
  select 1 from attempts a join deliveries d on d.id = a.delivery
  join transitions tr on tr.id = d.transition
  where tr.task = ? and d.hook = {{table}}.hook
    and substr(a.answer, 1, {SAID_KEPT}) = {{table}}.said
)
"""  # noqa: S608 - of this file
_EMPTY_THUMBNAILS = """
update files set thumbnail = null where delivery in (
  select d.id from deliveries d join transitions tr on tr.id = d.transition where tr.task = ?
)
"""
_DELETE_FILES = """
delete from files where delivery in (
  select d.id from deliveries d join transitions tr on tr.id = d.transition where tr.task = ?
)
"""
DELETE_INPUTS = "delete from inputs where task = ?"
_EMPTY_TASK = "update tasks set reference = null, reason = null where seq = ?"
# A request that is sent again with the same key makes no second task.
_EMPTY_ANSWERS = """
update idempotency_keys set status = 410, answer = ? where task = ?
"""
_CLOSE = "insert into forgotten (task, closed_at) values (?, ?) on conflict (task) do nothing"
_CANCEL = """
update deliveries set state = 'dead', due_at = null, ended_at = ?
where state = 'pending' and transition in (select id from transitions where task = ?)
"""
_RUNNING = """
select count(*) as running from deliveries
where state = 'claimed' and transition in (select id from transitions where task = ?)
"""
_FILES = """
select f.* from files f join deliveries d on d.id = f.delivery
join transitions tr on tr.id = d.transition
where tr.task = ? order by f.delivery, f.media_index
"""
