"""Looking at the record."""

from __future__ import annotations

from collections.abc import Collection

from receiver.deliveries import Delivery, Notice, State
from receiver.errors import NotFound
from receiver.stores import rows
from receiver.stores.base import (
    ALWAYS,
    Backlog,
    NoticeSource,
    Page,
    StoredCallback,
    TaskHistory,
    TimeRange,
)
from receiver.stores.sql.hook_queues import COUNTED, due, lanes
from receiver.stores.sql.lists import Lists
from receiver.stores.sql.outbox import Outbox
from receiver.tasks import Outcome, Status, Task


class Catalogue(Outbox):
    """See `stores.base.Catalogue`."""

    def told(self, delivery: Delivery) -> NoticeSource:
        task = self.task(delivery.task_id)
        with self.reading() as connection:
            row = connection.execute(_TRANSITION_OF, (delivery.id,)).fetchone()
            files = connection.execute(_FILES_OF_TRANSITION, (row["id"],)).fetchall()
        notice = Notice(
            task,
            rows.transition(row),
            files=tuple(map(rows.file, files)),
            made=tuple(
                rows.file(row)
                for row in files
                if row["delivery"] == delivery.id and row["attempt"] > delivery.retries_from
            ),
        )
        callback = self.callback(row["callback"]).callback if row["callback"] else None
        return NoticeSource(notice, callback, is_forgotten=row["closed_at"] is not None)

    def task(self, task_id: str) -> Task:
        with self.reading() as connection:
            row = connection.execute("select * from tasks where id = ?", (task_id,)).fetchone()
        if row is None:
            raise NotFound(f"no task {task_id}")
        return rows.task(row)

    def task_by_provider_id(self, provider: str, provider_task_id: str) -> Task:
        with self.reading() as connection:
            wanted = {"provider": provider, "id": provider_task_id}
            row = connection.execute(_BY_PROVIDER_ID, wanted).fetchone()
        if row is None:
            raise NotFound(f"no task of {provider} with the id {provider_task_id}")
        return rows.task(row)

    def history(self, task_id: str) -> TaskHistory:
        task = self.task(task_id)
        with self.reading() as connection:
            transitions = connection.execute(_TRANSITIONS_OF_TASK, (task_id,)).fetchall()
            attempts = connection.execute(_ATTEMPTS_OF_TASK, (task_id,)).fetchall()
            files = connection.execute(_FILES_OF_TASK, (task_id,)).fetchall()
            forgotten = connection.execute(_FORGOTTEN, (task_id,)).fetchone()
        everything = 10_000
        return TaskHistory(
            task=task,
            transitions=tuple(map(rows.transition, transitions)),
            callbacks=tuple(reversed(self.callbacks(task_id=task_id, limit=everything))),
            deliveries=tuple(reversed(self.deliveries(task_id=task_id, limit=everything))),
            attempts=rows.grouped(attempts, rows.attempt),
            files=rows.grouped(files, rows.file),
            forgotten_at=None if forgotten is None else forgotten["closed_at"],
        )

    def tasks(
        self,
        *,
        status: Status | None = None,
        provider: str | None = None,
        reference: str | None = None,
        limit: int = 50,
    ) -> list[Task]:
        page = self.page_of_tasks(
            before=None, limit=limit, status=status, provider=provider, reference=reference
        )
        return list(page.rows)

    def callbacks(
        self, *, task_id: str | None = None, outcome: Outcome | None = None, limit: int = 50
    ) -> list[StoredCallback]:
        page = self.page_of_callbacks(before=None, limit=limit, task_id=task_id, outcome=outcome)
        return list(page.rows)

    def callback(self, callback_id: int) -> StoredCallback:
        with self.reading() as connection:
            row = connection.execute(f"{_CALLBACKS} where c.id = ?", (callback_id,)).fetchone()
        if row is None:
            raise NotFound(f"no callback {callback_id}")
        return rows.callback(row)

    def deliveries(
        self,
        *,
        task_id: str | None = None,
        hook: str | None = None,
        state: State | None = None,
        limit: int = 50,
    ) -> list[Delivery]:
        page = self.page_of_deliveries(
            before=None, limit=limit, task_id=task_id, hook=hook, state=state
        )
        return list(page.rows)

    def page_of_tasks(
        self,
        *,
        before: int | None,
        limit: int,
        status: Status | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        created: TimeRange = ALWAYS,
    ) -> Page[Task]:
        of_task = _given(provider=provider, reference=reference, account=account)
        statuses = () if status is None else (status,)
        with self.reading() as connection:
            lists = Lists(connection, self._pages)
            keys, values = lists.tasks(of_task, statuses, created, before, limit + 1)
            found = connection.execute(_TASKS.format(keys=keys), values).fetchall()
        following = found[limit - 1]["seq"] if len(found) > limit else None
        return Page(tuple(map(rows.task, found[:limit])), following)

    def page_of_callbacks(
        self,
        *,
        before: int | None,
        limit: int,
        task_id: str | None = None,
        outcome: Outcome | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        received: TimeRange = ALWAYS,
    ) -> Page[StoredCallback]:
        of_task = _given(id=task_id, reference=reference, account=account)
        wanted = _given(provider=provider, outcome=outcome)
        with self.reading() as connection:
            lists = Lists(connection, self._pages)
            keys, values = lists.callbacks(of_task, wanted, received, before, limit + 1)
            sql = f"{_CALLBACKS} where c.id in ({keys}) order by c.id desc"
            found = connection.execute(sql, values).fetchall()
        following = found[limit - 1]["id"] if len(found) > limit else None
        return Page(tuple(map(rows.callback, found[:limit])), following)

    def page_of_deliveries(
        self,
        *,
        before: int | None,
        limit: int,
        task_id: str | None = None,
        hook: str | None = None,
        state: State | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        moved: TimeRange = ALWAYS,
    ) -> Page[Delivery]:
        of_task = _given(id=task_id, provider=provider, reference=reference, account=account)
        with self.reading() as connection:
            lists = Lists(connection, self._pages)
            keys, values = lists.deliveries(of_task, hook, state, moved, before, limit + 1)
        found = self._deliveries_where(f"d.id in ({keys}) order by d.id desc", values)
        following = found[limit - 1].id if len(found) > limit else None
        return Page(tuple(found[:limit]), following)

    def delivery(self, delivery_id: int) -> Delivery:
        found = self._deliveries_where("d.id = ?", [delivery_id])
        if not found:
            raise NotFound(f"no delivery {delivery_id}")
        return found[0]

    def backlog(self, now: int, hooks: Collection[str] | None = None) -> Backlog:
        with self.reading() as connection:
            dead = connection.execute(_DEAD, (COUNTED,)).fetchone()["dead"]
            waiting = [(lane, due(connection, lane.hook, now)) for lane in lanes(connection)]
        usable = {lane.hook for lane, _ in waiting if hooks is None or lane.hook in hooks}
        ready = [lane.ready_since(now) for lane, _ in waiting if lane.hook in usable]
        oldest = min((since for since in ready if since is not None), default=None)
        held = sum(count for lane, count in waiting if lane.hook not in usable or lane.is_held(now))
        return Backlog(sum(count for _, count in waiting), dead, oldest, held)


def _given(**wanted: object) -> dict[str, object]:
    return {name: value for name, value in wanted.items() if value is not None}


_TASKS = "select * from tasks where seq in ({keys}) order by seq desc"
_DEAD = """
select count(*) as dead from (select 1 from deliveries where state = 'dead' order by id limit ?)
as found
"""

_CALLBACKS = """
select c.*, t.id as task_id from callbacks c left join tasks t on t.seq = c.task
"""
_BY_PROVIDER_ID = """
select * from tasks
where provider = :provider and (provider_task_id = :id or callback_task_id = :id)
order by seq desc limit 1
"""

_TRANSITION_OF = """
select tr.*, forgotten.closed_at
from transitions tr join deliveries d on d.transition = tr.id
left join forgotten on forgotten.task = tr.task
where d.id = ?
"""

_FORGOTTEN = """
select closed_at from forgotten join tasks on tasks.seq = forgotten.task where tasks.id = ?
"""

_TRANSITIONS_OF_TASK = """
select tr.* from transitions tr join tasks t on t.seq = tr.task where t.id = ? order by tr.id
"""

_FILES_OF_TRANSITION = """
select f.* from files f join deliveries d on d.id = f.delivery
where d.transition = ? and substr(f.media_index, 1, 9) <> 'replaced '
order by f.delivery, f.media_index
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
