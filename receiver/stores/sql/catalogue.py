"""Looking at the record."""

from __future__ import annotations

from receiver.deliveries import Delivery, Notice, State
from receiver.errors import NotFound
from receiver.stores import rows
from receiver.stores.base import ALWAYS, Backlog, Page, Span, StoredCallback, TaskHistory, Told
from receiver.stores.sql.lanes import COUNTED, due, lanes
from receiver.stores.sql.outbox import Outbox
from receiver.stores.sql.session import LAST
from receiver.tasks import Outcome, Status, Task


class Catalogue(Outbox):
    """See `stores.base.Catalogue`."""

    def told(self, delivery: Delivery) -> Told:
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
        return Told(notice, callback, is_forgotten=row["closed_at"] is not None)

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
        wanted = {"status": status, "provider": provider, "reference": reference}
        with self.reading() as connection:
            found = connection.execute(*self._pages.of_tasks(wanted, None, limit)).fetchall()
        return list(map(rows.task, found))

    def callbacks(
        self, *, task_id: str | None = None, outcome: Outcome | None = None, limit: int = 50
    ) -> list[StoredCallback]:
        where, values = rows.filters(**{"t.id": task_id, "c.outcome": outcome})
        sql = f"{_CALLBACKS} where {where} order by c.id desc limit ?"
        with self.reading() as connection:
            return [rows.callback(row) for row in connection.execute(sql, [*values, limit])]

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
        return self._deliveries_where(*self._pages.of_deliveries(task_id, hook, state, None, limit))

    def page_of_tasks(
        self,
        *,
        before: int | None,
        limit: int,
        status: Status | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        created: Span = ALWAYS,
    ) -> Page[Task]:
        wanted = {
            "status": status,
            "provider": provider,
            "reference": reference,
            "account": account,
        }
        with self.reading() as connection:
            query = self._pages.of_tasks(wanted, before, limit + 1, created)
            found = connection.execute(*query).fetchall()
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
        received: Span = ALWAYS,
    ) -> Page[StoredCallback]:
        wanted = {"c.outcome": outcome, "c.provider": provider}
        of_task = {"t.id": task_id, "t.reference": reference, "t.account": account}
        where, values = rows.filters(**wanted, **of_task)
        more, bounds = rows.within("c.received_at", received)
        sql = f"{_CALLBACKS} where c.id < ? and {where}{more} order by c.id desc limit ?"
        start = LAST if before is None else before
        with self.reading() as connection:
            found = connection.execute(sql, [start, *values, *bounds, limit + 1]).fetchall()
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
        moved: Span = ALWAYS,
    ) -> Page[Delivery]:
        of_task = {"provider": provider, "reference": reference, "account": account}
        query = self._pages.of_deliveries(task_id, hook, state, before, limit + 1, of_task, moved)
        found = self._deliveries_where(*query)
        following = found[limit - 1].id if len(found) > limit else None
        return Page(tuple(found[:limit]), following)

    def delivery(self, delivery_id: int) -> Delivery:
        found = self._deliveries_where("d.id = ?", [delivery_id])
        if not found:
            raise NotFound(f"no delivery {delivery_id}")
        return found[0]

    def backlog(self, now: int) -> Backlog:
        with self.reading() as connection:
            dead = connection.execute(_DEAD, (COUNTED,)).fetchone()["dead"]
            waiting = [(lane, due(connection, lane.hook, now)) for lane in lanes(connection)]
        ready = [lane.ready_since(now) for lane, _ in waiting]
        oldest = min((since for since in ready if since is not None), default=None)
        held = sum(count for lane, count in waiting if lane.is_held(now))
        return Backlog(sum(count for _, count in waiting), dead, oldest, held)


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
