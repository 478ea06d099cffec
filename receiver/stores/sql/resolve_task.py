"""Finds the task of a message, or creates it."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Source
from receiver.stores.sql import rows
from receiver.stores.sql.database import Session
from receiver.stores.sql.locks import LOCK_TASK, Lock, locked
from receiver.stores.sql.rows import Row
from receiver.tasks import (
    QUERY_ADOPTED_AFTER,
    IdSource,
    Status,
    Task,
    mismatch_problem,
    new_task_id,
)


@dataclass(frozen=True, slots=True)
class ProviderId:
    """The provider's id of the task in a message; empty in the response to a refused create.

    Ids are compared only with ids in the same column. If a provider may use other ids in callbacks
    than in responses, the ids in callbacks have a separate column.
    """

    id: str
    source: IdSource
    column: str  # of the table `tasks`
    sources: tuple[Source, ...]  # of messages whose ids are stored in this column

    @classmethod
    def of(cls, callback: Callback, event: Event, *, shares_ids: bool) -> ProviderId:
        source = IdSource(callback.source.value)
        if shares_ids:
            return cls(event.provider_task_id, source, "provider_task_id", tuple(Source))
        if callback.source is Source.CALLBACK:
            sources: tuple[Source, ...] = (Source.CALLBACK,)
            return cls(event.provider_task_id, source, "callback_task_id", sources)
        sources = (Source.CREATE, Source.QUERY)
        return cls(event.provider_task_id, source, "provider_task_id", sources)

    def is_first(self, task: Row) -> bool:
        """Return whether no id is on record yet."""
        return bool(self.id) and task[self.column] is None

    def is_other(self, task: Row) -> bool:
        """Return whether another id is on record."""
        known = task[self.column]
        # Surrounding whitespace is not part of an id.
        return bool(self.id) and known is not None and known.strip() != self.id.strip()

    def outranks(self, task: Row) -> bool:
        """Return whether the source of this id outranks the source of the id on record."""
        if not self.id or task[self.column] is None:
            return False
        known = task["id_source"] if self.column == "provider_task_id" else IdSource.CALLBACK
        return self.source.outranks(IdSource(known))

    def problem(self, known: str) -> str:
        return mismatch_problem(self.id, known)


def find_or_create(
    session: Session,
    callback: Callback,
    event: Event | None = None,
    named: ProviderId | None = None,
    query_after: int = QUERY_ADOPTED_AFTER,
) -> Row:
    """Return the task of the message, and create it if it is not on record.

    The sender was verified by our token or by the provider's signature. `event` and `named` are the
    parsed message and its id, if it was understood. A task that is created is queried `query_after`
    ms after the message. Raises NotTheProtocol.
    """
    row = _known(session, callback, event, named)
    row = row or _adopt(session, callback, event, named, query_after)
    if row["provider"] != callback.provider:
        raise NotTheProtocol(f"task {row['id']} is a task of {row['provider']}")
    return row


def find(session: Session, task_id: str | None) -> Row | None:
    """Return the task with this id, and lock it until the transaction ends; None without one.

    A statement that waits for a lock reads other tables as they were before it waited. Therefore, a
    separate statement locks the task first, and the next one sees whether it was forgotten.
    """
    session.lock(LOCK_TASK, (task_id,))
    row: Row | None = session.execute(_FIND_BY_ID, (task_id,)).fetchone()
    return row


def insert(session: Session, task: Task) -> Row | None:
    """Insert the task. Returns its row with the columns of `find`; None if the id exists."""
    row: Row | None = session.execute(_INSERT_TASK, rows.of_task(task)).fetchone()
    return row


def _known(
    session: Session, callback: Callback, event: Event | None, named: ProviderId | None
) -> Row | None:
    if callback.task_id is not None or event is None or named is None:
        return find(session, callback.task_id)
    plain_id = named.id.strip()  # surrounding whitespace is not part of an id
    session.lock_name(f"{callback.provider} {plain_id}")
    found: Row | None = find(session, event.external_task_id)
    for provider_task_id in (named.id, plain_id) if plain_id != named.id else (named.id,):
        if found is None:
            session.lock(
                _LOCK_BY_PROVIDER_ID, (callback.provider, provider_task_id, provider_task_id)
            )
            sql = _FIND_BY_PROVIDER_ID[named.column]
            found = session.execute(sql, (callback.provider, provider_task_id)).fetchone()
    return found


def _adopt(
    session: Session,
    callback: Callback,
    event: Event | None,
    named: ProviderId | None,
    query_after: int,
) -> Row:
    at = callback.received_at
    ids = {named.column: named.id} if named and named.id else {}
    task_id = callback.task_id or new_task_id(at)
    reference = event.external_task_id if event else None
    task = Task(
        id=task_id,
        provider=callback.provider,
        status=Status.CREATED,
        created_at=at,
        updated_at=at,
        reference=reference if reference != task_id else None,
        expects_callback=True,
        deadline_at=at + query_after,
        provider_task_id=ids.get("provider_task_id"),
        callback_task_id=ids.get("callback_task_id"),
        id_source=named.source if named else None,
    )
    row = insert(session, task) or find(session, task_id)
    assert row is not None  # noqa: S101 - inserted now or earlier
    return row


_COLUMNS = """seq, id, provider, provider_task_id, id_source, callback_task_id, reference, status,
  trust, expects_callback, given_up_at, mismatched_at"""

_FIND = f"""
select {_COLUMNS}, forgotten.closed_at as forgotten_at
from tasks left join forgotten on forgotten.task = tasks.seq
"""  # noqa: S608 - contains no input

_FIND_BY_ID = f"{_FIND} where id = ?"

_FIND_BY_PROVIDER_ID = {
    column: f"{_FIND} where provider = ? and {column} = ?"
    for column in ("provider_task_id", "callback_task_id")
}

_LOCK_BY_PROVIDER_ID = locked(
    "select seq from tasks where provider = ? and (provider_task_id = ? or callback_task_id = ?)",
    Lock.TASKS,
)

_INSERT_TASK = f"""
insert into tasks ({", ".join(rows.TASK_COLUMNS)})
values ({", ".join(f":{column}" for column in rows.TASK_COLUMNS)})
on conflict (id) do nothing
returning {_COLUMNS}, null as forgotten_at
"""  # noqa: S608 - contains no input
