"""Reads single rows of the record, and the rows that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from receiver.deliveries import Attempt, Delivery, File, Notice, Transition
from receiver.errors import NotFound
from receiver.events import Callback, Source
from receiver.stores.sql import rows
from receiver.stores.sql.database import Component
from receiver.stores.sql.notices import load_notices
from receiver.stores.sql.rows import StoredCallback, TimeRange, from_row
from receiver.tasks import Task


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """Everything on record about one task."""

    task: Task
    transitions: tuple[Transition, ...]
    callbacks: tuple[StoredCallback, ...]
    deliveries: tuple[Delivery, ...]
    attempts: dict[int, tuple[Attempt, ...]]  # by delivery id
    files: dict[int, tuple[File, ...]]  # by delivery id
    forgotten_at: int | None = None

    @property
    def messages(self) -> tuple[StoredCallback, ...]:
        """The messages of the provider, without our own note that it could not be reached."""
        if not self.task.was_never_sent:
            return self.callbacks
        return tuple(one for one in self.callbacks if one.callback.source is not Source.CREATE)


@dataclass(frozen=True, slots=True)
class Picture:
    """A stored file of an output of a task, without the bytes of its thumbnail."""

    task_id: str
    delivery: int
    file: File
    has_thumbnail: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """The cost of one task, as its provider states it."""

    row: int  # the row key, after which the next page begins
    provider: str
    account: str
    reference: str | None
    created_at: int  # integer milliseconds UTC
    cost: str
    unit: str | None  # None: recorded by a release that did not store it


class Queries(Component):
    """Reads single rows, and the rows that belong to given rows."""

    def task(self, task_id: str) -> Task:
        """Return the task with this id. Raises NotFound."""
        row = self._row("select * from tasks where id = ?", (task_id,))
        if row is None:
            raise NotFound(f"no task has the id {task_id}")
        return from_row(Task, row)

    def tasks_by_any_provider_id(self, provider_task_id: str, limit: int) -> list[Task]:
        """Return the newest tasks with this id at any provider. Reads all tasks."""
        found = self._rows(_BY_ANY_PROVIDER_ID, (provider_task_id, provider_task_id, limit))
        return [from_row(Task, row) for row in found]

    def tasks_by_part_of_id(self, part: str, limit: int) -> list[Task]:
        """Return the newest tasks whose id begins or ends with this text. Reads all tasks."""
        length = len(part)
        found = self._rows(_BY_PART_OF_ID, (length, part, length, part, limit)) if part else []
        return [from_row(Task, row) for row in found]

    def task_by_provider_id(self, provider: str, provider_task_id: str) -> Task:
        """Return the newest task with this id in responses or callbacks. Raises NotFound."""
        row = self._row(_BY_PROVIDER_ID, {"provider": provider, "id": provider_task_id})
        if row is None:
            raise NotFound(f"no task of {provider} with the id {provider_task_id}")
        return from_row(Task, row)

    def history(self, task_id: str) -> TaskHistory:
        """Return everything on record about a task. Raises NotFound."""
        task = self.task(task_id)
        with self._database.reading() as session:
            transitions = session.execute(_TRANSITIONS_OF_TASK, (task_id,)).fetchall()
            callbacks = session.execute(_CALLBACKS_OF_TASK, (task_id,)).fetchall()
            deliveries = rows.deliveries(session, "t.id = ? order by d.id", [task_id])
            attempts = session.execute(_ATTEMPTS_OF_TASK, (task_id,)).fetchall()
            files = session.execute(_FILES_OF_TASK, (task_id,)).fetchall()
            forgotten = session.execute(_FORGOTTEN, (task_id,)).fetchone()
        return TaskHistory(
            task=task,
            transitions=tuple(from_row(Transition, row) for row in transitions),
            callbacks=tuple(map(rows.callback, callbacks)),
            deliveries=tuple(deliveries),
            attempts=rows.grouped(Attempt, attempts),
            files=rows.grouped(File, files),
            forgotten_at=None if forgotten is None else forgotten["closed_at"],
        )

    def notices(self, task_id: str) -> list[Notice]:
        """Return the notices of a task's transitions, oldest first, as filters see them."""
        with self._database.reading() as session:
            found = session.execute(_TRANSITIONS_OF_TASK, (task_id,)).fetchall()
            return list(load_notices(session, [row["id"] for row in found]).values())

    def callback(self, callback_id: int) -> StoredCallback:
        """Return the callback with this row key. Raises NotFound."""
        row = self._row(_CALLBACK, (callback_id,))
        if row is None:
            raise NotFound(f"no callback {callback_id}")
        return rows.callback(row)

    def delivery(self, delivery_id: int) -> Delivery:
        """Return the delivery with this id. Raises NotFound."""
        with self._database.reading() as session:
            found = rows.deliveries(session, "d.id = ?", [delivery_id])
        if not found:
            raise NotFound(f"no delivery {delivery_id}")
        return found[0]

    def tasks_by_id(self, task_ids: Sequence[str]) -> dict[str, Task]:
        """Return the tasks with these ids that are on record, by id."""
        sql = f"select * from tasks where {rows.any_of('id', task_ids)}"  # noqa: S608 - of rows
        return {row["id"]: from_row(Task, row) for row in self._rows(sql, task_ids)}

    def pictures(self, task_ids: Sequence[str]) -> dict[str, list[Picture]]:
        """Return the files of these tasks, by task id."""
        pictures: dict[str, list[Picture]] = {}
        for row in self._rows(_PICTURES.format(where=rows.any_of("t.id", task_ids)), task_ids):
            file, has_thumbnail = from_row(File, row), bool(row["has_thumbnail"])
            picture = Picture(row["task_id"], row["delivery"], file, has_thumbnail)
            pictures.setdefault(picture.task_id, []).append(picture)
        return pictures

    def picture(self, delivery: int, media_index: str) -> File:
        """Return one file, with its thumbnail. Raises NotFound."""
        row = self._row(_PICTURE, (delivery, media_index))
        if row is None:
            raise NotFound(f"no file {media_index} of delivery {delivery}")
        return from_row(File, row)

    def results(self, task_ids: Sequence[str]) -> dict[str, Callback]:
        """Return the messages that reported the success of these tasks, by task id."""
        found = self._rows(_RESULTS.format(where=rows.any_of("t.id", task_ids)), task_ids)
        return {row["task_id"]: rows.callback(row).callback for row in found}

    def attempts(self, deliveries: Sequence[Delivery]) -> dict[int, tuple[Attempt, ...]]:
        """Return the attempts at these deliveries, by delivery id."""
        ids = [delivery.id for delivery in deliveries]
        sql = f"select * from attempts where {rows.any_of('delivery', ids)} {_IN_ORDER}"  # noqa: S608
        return rows.grouped(Attempt, self._rows(sql, ids))

    def inputs(self, task_id: str) -> dict[str, bytes]:
        """Return the stored thumbnails of the inputs of a task, by name; none if it is unknown."""
        return {row["name"]: bytes(row["thumbnail"]) for row in self._rows(_INPUTS, (task_id,))}

    def names_of_inputs(self, task_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return the names of the stored inputs, by task id; tasks without any are left out."""
        if not task_ids:
            return {}
        found: dict[str, list[str]] = {}
        for row in self._rows(_NAMES.format(tasks=rows.any_of("t.id", task_ids)), task_ids):
            found.setdefault(row["task_id"], []).append(row["name"])
        return found

    def forgotten(self, task_ids: Sequence[str]) -> set[str]:
        """Return which of these tasks were forgotten."""
        sql = _FORGOTTEN_OF.format(where=rows.any_of("tasks.id", task_ids))
        return {row["id"] for row in self._rows(sql, task_ids)}

    def charges(
        self,
        created: TimeRange,
        *,
        after: int = 0,
        limit: int = 1000,
        provider: str | None = None,
        account: str | None = None,
    ) -> list[Charge]:
        """Return up to `limit` charges of tasks created in this time, oldest first.

        The charges follow the row key `after`.
        """
        where, values = rows.filters(provider=provider, account=account)
        more, bounds = rows.within("created_at", created)
        sql = f"{_CHARGES} and {where}{more} order by seq limit ?"
        found = self._rows(sql, [after, *values, *bounds, limit])
        return [from_row(Charge, row) for row in found]


_CALLBACK = f"{rows.SELECT_CALLBACKS} where c.id = ?"
_CALLBACKS_OF_TASK = f"{rows.SELECT_CALLBACKS} where t.id = ? order by c.id"
_BY_PROVIDER_ID = """
select * from tasks
where provider = :provider and (provider_task_id = :id or callback_task_id = :id)
order by seq desc limit 1
"""

_BY_ANY_PROVIDER_ID = """
select * from tasks where provider_task_id = ? or callback_task_id = ? order by seq desc limit ?
"""

_BY_PART_OF_ID = """
select * from tasks
where substr(id, 1, ?) = ? or substr(id, length(id) + 1 - ?) = ? order by seq desc limit ?
"""

_FORGOTTEN = """
select closed_at from forgotten join tasks on tasks.seq = forgotten.task where tasks.id = ?
"""

_FORGOTTEN_OF = """
select tasks.id from forgotten join tasks on tasks.seq = forgotten.task where {where}
"""

_TRANSITIONS_OF_TASK = """
select tr.* from transitions tr join tasks t on t.seq = tr.task where t.id = ? order by tr.id
"""

_FILES_OF_TASK = """
select f.* from files f join deliveries d on d.id = f.delivery
join transitions tr on tr.id = d.transition join tasks t on t.seq = tr.task
where t.id = ? order by f.delivery, f.media_index
"""

_ATTEMPTS_OF_TASK = """
select a.* from attempts a join deliveries d on d.id = a.delivery
join transitions tr on tr.id = d.transition join tasks t on t.seq = tr.task
where t.id = ? order by a.delivery, a.number
"""

_IN_ORDER = "order by delivery, number"

_PICTURES = """
select t.id as task_id, f.delivery, f.media_index, f.url, f.sha256, f.size, f.content_type,
  null as thumbnail, f.thumbnail is not null as has_thumbnail
from tasks t join transitions tr on tr.task = t.seq join deliveries d on d.transition = tr.id
join files f on f.delivery = d.id
where {where} and substr(f.media_index, 1, 9) <> 'replaced ' order by f.delivery, f.media_index
"""

_PICTURE = "select * from files where delivery = ? and media_index = ?"

_RESULTS = """
select c.*, t.id as task_id from tasks t
join transitions tr on tr.task = t.seq and tr.status = 'succeeded'
join callbacks c on c.id = tr.callback
where {where}
"""

_INPUTS = """
select i.name, i.thumbnail from inputs i join tasks t on t.seq = i.task
where t.id = ? order by i.name
"""

# In the order of the request: the person, then the garments.
_NAMES = """
select t.id as task_id, i.name from inputs i join tasks t on t.seq = i.task
where {tasks} order by t.id, case i.name when 'human' then 0 else 1 end, i.name
"""

_CHARGES = """
select seq as "row", provider, account, reference, created_at, cost, cost_unit as unit from tasks
where cost is not null and seq > ?
"""
