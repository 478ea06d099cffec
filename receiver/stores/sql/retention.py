"""Erases payloads past their retention period, and everything about a task on request.

`personal_data.py` says which columns are erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from receiver.clock import now_ms
from receiver.errors import NotFound
from receiver.stores import rows
from receiver.stores.sql import personal_data
from receiver.stores.sql.echoes import ErasedTerms
from receiver.stores.sql.keys import KEPT_FOR, erased_key
from receiver.stores.sql.locks import LOCK_TASK
from receiver.stores.sql.session import Row, Session, SqlStoreBase
from receiver.stores.sql.transfer import TABLES as KEYS
from receiver.stores.upkeep import Erasure, PruneStep, RepairStep, Texts, UnfinishedErasure

GONE = '{"title": "Gone", "status": 410, "detail": "The task was forgotten."}'
NEEDED_FOR_A_DAY = ("idempotency_keys", "alerts")
AT_ONCE = 500  # rows whose texts are compared in one step


class Retention(SqlStoreBase):
    """See `stores.upkeep.Retention`."""

    def prune(
        self,
        older_than: int,
        *,
        after: tuple[int, int] | None = None,
        limit: int = 200,
        dead_too: bool = False,
    ) -> PruneStep:
        wanted = {"older": older_than, "at": (after or (0, 0))[0], "id": (after or (0, 0))[1]}

        def work(connection: Session) -> PruneStep:
            sql = _KEPT.format(ripe=ripe_if(dead_too=dead_too))
            found = connection.execute(sql, {**wanted, "limit": limit}).fetchall()
            ripe = [row for row in found if row["is_ripe"]]
            for row in ripe:
                connection.execute(personal_data.PRUNE_CALLBACK, {"id": row["id"], "nothing": b""})
            tasks = {row["task"]: row["task_id"] for row in ripe if row["task"] is not None}
            self._empty(connection, tasks)
            if ripe:
                self._note_erasure(connection)
            following = (found[-1]["received_at"], found[-1]["id"]) if found else None
            size = sum(row["size"] for row in ripe)
            going_on = following if len(found) == limit else None
            return PruneStep(len(ripe), size, going_on, tasks=tuple(tasks.values()))

        return self._write(work)

    def prune_texts(
        self,
        of: Texts,
        older_than: int,
        *,
        after: int = 0,
        limit: int = 200,
        dead_too: bool = False,
    ) -> RepairStep:
        wanted = {"older": older_than, "after": after, "limit": limit}
        sql = _TEXTS[of].format(ripe=ripe_if(dead_too=dead_too))
        with self.reading() as connection:
            found = connection.execute(sql, wanted).fetchall()
        ripe = [row["task"] for row in found if row["is_ripe"]]

        def work(connection: Session) -> None:
            self._empty(connection, ripe)
            self._note_erasure(connection)

        if ripe:
            self._write(work)
        return RepairStep(len(ripe), found[-1]["id"] if len(found) == limit else None)

    def prune_rows(self, older_than: int) -> int:
        def work(connection: Session) -> int:
            deleted = 0
            for name, table in personal_data.TABLES.items():
                if table.dated_by:
                    # A younger key or alert may still be needed: the same request must not be paid
                    # twice, and people must still be notified.
                    last = now_ms() - KEPT_FOR if name in NEEDED_FOR_A_DAY else older_than
                    sql = f"delete from {name} where {table.dated_by} < ?"  # noqa: S608
                    deleted += connection.execute(sql, (min(older_than, last),)).rowcount
            if deleted:
                self._note_erasure(connection)
            return deleted

        return self._write(work)

    def give_back(self, pages: int) -> int:
        """See `stores.upkeep.Retention`; each database has its own way."""
        raise NotImplementedError

    def finish_erasure(self) -> bool:
        """See `stores.upkeep.Retention`; each database has its own way."""
        raise NotImplementedError

    def unfinished_erasure(self) -> UnfinishedErasure | None:
        with self.reading() as connection:
            row = connection.execute("select since, mark from erasures").fetchone()
        return None if row is None else UnfinishedErasure(row["since"], self._held_by(row["mark"]))

    def _held_by(self, mark: int) -> str:
        """Return what keeps an erasure from being finished, and how to find it."""
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

    def erase(self, task_id: str, now: int) -> bool:
        task, reference, words = self._words(task_id)
        # First, because the words are known only as long as the task itself has them.
        for sql in _OTHER_CALLBACKS:
            with self.reading() as connection:
                ids = [row["id"] for row in connection.execute(sql).fetchall()]
            for start in range(0, len(ids), AT_ONCE):
                some = ids[start : start + AT_ONCE]
                self._erase_echoes("callbacks", rows.any_of("id", some), some, words)
        last: int | None = 0
        while last is not None and words.folded:
            last = self._erase_echoes("attempts", _OTHER_ATTEMPTS, (last, task), words)

        def work(connection: Session) -> None:
            seq = _seq(connection, task_id)
            values = {"task": seq, "nothing": b"", "erased": personal_data.FORGOTTEN}
            for table in personal_data.SHARED:
                _erase_shared(connection, table, words)
            for sql in (*personal_data.ERASE_SAID, *personal_data.FORGET_TASK):
                connection.execute(sql, values)
            for row in connection.execute(_KEYS_OF_TASK, (task_id,)).fetchall():
                connection.execute(_ERASE_KEY, (erased_key(row["key"]), GONE, row["key"]))
            connection.execute("update forgotten set erased_at = ? where task = ?", (now, seq))
            self._note_erasure(connection)

        self._write(work)
        is_finished = self.finish_erasure()
        if is_finished and reference:
            self.remove_remnants(reference)
        return is_finished

    def remove_remnants(self, reference: str) -> None:
        """See `stores.upkeep.Retention`; only some databases leave any."""

    def _words(self, task_id: str) -> tuple[int, str | None, ErasedTerms]:
        """Return the row key of the task, its reference, and what others may have repeated."""
        with self.reading() as connection:
            row = connection.execute("select * from tasks where id = ?", (task_id,)).fetchone()
        if row is None:
            raise NotFound(f"no task {task_id}")
        names = ("reference", "id", "provider_task_id", "callback_task_id")
        return int(row["seq"]), row["reference"], ErasedTerms.of(row[name] for name in names)

    def _erase_echoes(
        self, table: str, where: str, values: Sequence[object], words: ErasedTerms
    ) -> int | None:
        """Erase texts of other tasks, or of none, that repeat a word of this one.

        Looks at AT_ONCE rows, and returns the last row key; None if there are no more.
        """
        columns = personal_data.TABLES[table].personal
        sql = f"select * from {table} where {where} order by id limit {AT_ONCE}"  # noqa: S608
        with self.reading() as connection:
            page = connection.execute(sql, values).fetchall()
        found = [row["id"] for row in page if _mentions(row, columns, words)]
        statement = personal_data.erasing(table, columns, "id = :id")

        def work(connection: Session) -> None:
            for key in found:
                connection.execute(statement, {"id": key, "nothing": b""})
            self._note_erasure(connection)

        if found:
            self._write(work)
        return page[-1]["id"] if len(page) == AT_ONCE else None

    def _empty(self, connection: Session, tasks: Iterable[int]) -> None:
        """Erase what `prune` erases of these tasks, except for their callbacks."""
        for task in tasks:
            values = {"task": task, "nothing": b"", "erased": personal_data.PRUNED}
            for sql in (*personal_data.ERASE_SAID, *personal_data.PRUNE_TASK):
                connection.execute(sql, values)


def ripe_if(*, dead_too: bool) -> str:
    """The condition under which the payloads of a task `t` may go, as SQL."""
    return _RIPE.format(hold="'pending', 'claimed'" + ("" if dead_too else ", 'dead'"))


def _erase_shared(connection: Session, table: str, words: ErasedTerms) -> None:
    """Erase the texts of rows of no task that repeat a word."""
    columns, (key,) = personal_data.TABLES[table].personal, KEYS[table]
    statement = personal_data.erasing(table, columns, f"{key} = :key")
    found = connection.execute(f"select * from {table}").fetchall()  # noqa: S608 - of our tables
    for row in found:
        if _mentions(row, columns, words):
            values = {"key": row[key], "erased": personal_data.FORGOTTEN}
            connection.execute(statement, values)


def _mentions(row: Row, columns: Iterable[str], words: ErasedTerms) -> bool:
    values = (row[column] for column in columns)
    return any(
        words.are_in(value if isinstance(value, str) else bytes(value)) for value in values if value
    )


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
select c.id, c.task, t.id as task_id, c.received_at, length(c.body) + length(c.headers) as size,
  c.task is null or ({ripe}) as is_ripe
from callbacks c left join tasks t on t.seq = c.task
where length(c.body) > 0 and c.received_at < :older and (c.received_at, c.id) > (:at, :id)
order by c.received_at, c.id limit :limit
"""
# Texts whose task may have no callback with a body; each is read along a partial index.
_TEXTS = {
    Texts.ANSWERS: """
select a.delivery as id, t.seq as task, ({ripe}) as is_ripe
from attempts a join deliveries d on d.id = a.delivery join transitions tr on tr.id = d.transition
join tasks t on t.seq = tr.task
where a.answer <> '' and a.ended_at < :older and a.delivery > :after
order by a.delivery limit :limit
""",
    Texts.REASONS: """
select t.seq as id, t.seq as task, ({ripe}) as is_ripe from tasks t
where t.reason is not null and t.updated_at < :older and t.seq > :after
order by t.seq limit :limit
""",
}
# Where texts that belong to other tasks, or to none, may repeat words of a task. An answer of
# another task of the same customer stays: `forget --reference` erases it with that task.
_OTHER_ATTEMPTS = """
id > ? and answer <> '' and not exists (
  select 1 from deliveries d join transitions tr on tr.id = d.transition
  join tasks t on t.seq = tr.task join tasks own on own.seq = ?
  where d.id = attempts.delivery and t.reference = own.reference
)
"""
_OTHER_CALLBACKS = (
    "select id from callbacks where task is null",
    """
select c.id from tasks t join callbacks c on c.task = t.seq
where t.mismatched_at is not null and c.outcome = 'mismatch'
""",
)
_KEYS_OF_TASK = "select key from idempotency_keys where task = ?"
# A request that is sent again with the same key makes no second task.
_ERASE_KEY = "update idempotency_keys set key = ?, status = 410, answer = ? where key = ?"
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
