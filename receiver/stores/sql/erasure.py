"""Erases everything about a task on request; `personal_data.py` lists the columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from receiver.deliveries import File
from receiver.errors import NotFound
from receiver.stores.sql import personal_data, rows
from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.echoes import ErasedTerms
from receiver.stores.sql.idempotency import erased_key
from receiver.stores.sql.locks import LOCK_TASK
from receiver.stores.sql.rows import Row, from_row
from receiver.stores.sql.transfer import TABLES as KEYS


@dataclass(frozen=True, slots=True)
class UnfinishedErasure:
    """An erasure that was committed, while copies of the data remain in the database's files.

    `held_by` describes what prevents their removal, and how to find it.
    """

    since: int  # ms UTC
    held_by: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """The state of a task that is being forgotten."""

    task_id: str
    under_way: int  # attempts that are still running, whose files are not known yet
    files: tuple[File, ...]


GONE = '{"title": "Gone", "status": 410, "detail": "The task was forgotten."}'

AT_ONCE = 500  # rows that are searched in one step


class Erasures(Component):
    """Erases everything about a task on request."""

    def close_task(self, task_id: str, now: int) -> Erasure:
        """Close a task, the first step of forgetting it; return its running attempts and files.

        Afterwards nothing is stored, queried or sent about the task. Pending deliveries become dead
        letters. Raises NotFound. Safe to repeat.
        """

        def work(session: Session) -> Erasure:
            task = _seq(session, task_id)
            session.execute(_CLOSE, (task, now))
            session.execute("update tasks set deadline_at = null where seq = ?", (task,))
            session.execute(_CANCEL, (now, task))
            running = session.execute(_RUNNING, (task,)).fetchone()["running"]
            files = session.execute(_FILES, (task,)).fetchall()
            return Erasure(task_id, running, tuple(from_row(File, file) for file in files))

        return self._database.write(work)

    def erase(self, task_id: str, now: int) -> bool:
        """Erase all personal data of a closed task from the record, the second step.

        Keys, statuses and counters stay. Texts of other rows that repeat the reference or an id of
        the task are erased as well. Returns whether copies in the database's files were removed as
        well; if not, `unfinished` describes why. Raises NotFound. Safe to repeat.
        """
        task, reference, terms = self._terms(task_id)
        # Other rows come first, because afterwards the reference is no longer known.
        for sql in _OTHER_CALLBACKS:
            ids = [row["id"] for row in self._rows(sql)]
            for start in range(0, len(ids), AT_ONCE):
                page = ids[start : start + AT_ONCE]
                self._erase_echoes("callbacks", rows.any_of("id", page), page, terms)
        for table, where in _OTHER_DELIVERIES.items():
            last: int | None = 0
            while last is not None and terms.folded:
                last = self._erase_echoes(table, where, (last, task), terms)

        def work(session: Session) -> None:
            seq = _seq(session, task_id)
            values = {"task": seq, "nothing": b"", "erased": personal_data.FORGOTTEN}
            for table in personal_data.SHARED:
                _erase_shared(session, table, terms)
            for sql in (*personal_data.ERASE_SAID, *personal_data.FORGET_TASK):
                session.execute(sql, values)
            for row in session.execute(_KEYS_OF_TASK, (task_id,)).fetchall():
                session.execute(_ERASE_KEY, (erased_key(row["key"]), GONE, row["key"]))
            session.execute("update forgotten set erased_at = ? where task = ?", (now, seq))
            self._database.note_erasure(session)

        self._database.write(work)
        is_finished = self._database.finish_erasure()
        if is_finished and reference:
            self._database.remove_remnants(reference)
        return is_finished

    def unfinished(self) -> UnfinishedErasure | None:
        """Return the erasure that `finish_erasure` has not finished yet; None without one."""
        row = self._row("select since, mark from erasures")
        if row is None:
            return None
        return UnfinishedErasure(row["since"], self._database.held_by(row["mark"]))

    def _terms(self, task_id: str) -> tuple[int, str | None, ErasedTerms]:
        """Return the row key of the task, its reference, and the identifiers to search for."""
        row = self._row("select * from tasks where id = ?", (task_id,))
        if row is None:
            raise NotFound(f"no task {task_id}")
        names = ("reference", "id", "provider_task_id", "callback_task_id")
        return int(row["seq"]), row["reference"], ErasedTerms.of(row[name] for name in names)

    def _erase_echoes(
        self, table: str, where: str, values: Sequence[object], terms: ErasedTerms
    ) -> int | None:
        """Erase texts of other tasks, or of no task, that repeat an identifier of this one.

        Reads up to AT_ONCE rows. Returns the last row key; None if there are no more rows.
        """
        columns = personal_data.TABLES[table].personal
        sql = f"select * from {table} where {where} order by id limit {AT_ONCE}"  # noqa: S608
        page = self._rows(sql, values)
        found = [row["id"] for row in page if _mentions(row, columns, terms)]
        statement = personal_data.erasing(table, columns, "id = :id")

        def work(session: Session) -> None:
            for key in found:
                session.execute(statement, {"id": key, "nothing": b""})
            self._database.note_erasure(session)

        if found:
            self._database.write(work)
        return page[-1]["id"] if len(page) == AT_ONCE else None


def _erase_shared(session: Session, table: str, terms: ErasedTerms) -> None:
    """Erase the texts in rows without a task that repeat an identifier."""
    columns, (key,) = personal_data.TABLES[table].personal, KEYS[table]
    statement = personal_data.erasing(table, columns, f"{key} = :key")
    found = session.execute(f"select * from {table}").fetchall()  # noqa: S608 - of our tables
    for row in found:
        if _mentions(row, columns, terms):
            values = {"key": row[key], "erased": personal_data.FORGOTTEN}
            session.execute(statement, values)


def _mentions(row: Row, columns: Iterable[str], terms: ErasedTerms) -> bool:
    values = (row[column] for column in columns)
    return any(
        terms.are_in(value if isinstance(value, str) else bytes(value)) for value in values if value
    )


def _seq(session: Session, task_id: str) -> int:
    row = session.execute_locked(LOCK_TASK, (task_id,)).fetchone()
    if row is None:
        raise NotFound(f"no task {task_id}")
    return int(row["seq"])


# The rows of other tasks, or of no task, whose texts may repeat an identifier of a task. The
# answers and outputs of another task with the same reference stay: `forget --reference` erases them
# with that task.
_WITH_THE_REFERENCE = """
  select 1 from deliveries d join transitions tr on tr.id = d.transition
  join tasks t on t.seq = tr.task join tasks own on own.seq = ?
  where t.reference = own.reference and d.id =
"""

_OTHER_DELIVERIES = {
    "attempts": f"id > ? and answer <> '' and not exists ({_WITH_THE_REFERENCE} attempts.delivery)",
    "deliveries": (
        f"id > ? and output is not null and not exists ({_WITH_THE_REFERENCE} deliveries.id)"
    ),
}

_OTHER_CALLBACKS = (
    "select id from callbacks where task is null",
    """
select c.id from tasks t join callbacks c on c.task = t.seq
where t.mismatched_at is not null and c.outcome = 'mismatch'
""",
)

_KEYS_OF_TASK = "select key from idempotency_keys where task = ?"

# The digest of the key stays, so that a repeated request creates no second task.
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
