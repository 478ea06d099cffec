"""The record in one SQLite file: for one machine, with every acknowledged callback on disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event as Signal
from typing import Any

from receiver.clock import now_ms
from receiver.deliveries import (
    Attempt,
    Delivery,
    File,
    Notice,
    State,
    Subscription,
)
from receiver.errors import NotFound, SchemaMismatch, StoreUnavailable
from receiver.events import Callback, Event
from receiver.stores import rows, schema
from receiver.stores.base import Backlog, StoredCallback, TaskHistory, Told
from receiver.stores.recording import Recording
from receiver.stores.writer import GroupCommit, connect
from receiver.tasks import Outcome, Status, Task

POLL_EVERY = 0.015  # seconds; asking for `data_version` costs microseconds


class SqliteStore:
    """See `stores.base.Store`, whose verbs these are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = GroupCommit(path)
        self._readers = threading.local()

    # -- schema

    def migrate(self) -> list[str]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return schema.migrate(self._path)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error

    def check_schema(self) -> None:
        if not self._path.exists():
            raise SchemaMismatch(f"{self._path} does not exist yet; run: receiver migrate")
        with self._read() as connection:
            schema.check(connection, self._path)

    def close(self) -> None:
        self._writer.close()

    # -- the way in

    def create_task(self, task: Task) -> None:
        self._writer.run(lambda connection: Recording(connection).create(task))

    def record(
        self, callback: Callback, event: Event, subscriptions: Sequence[Subscription]
    ) -> Outcome:
        return self._writer.run(
            lambda connection: Recording(connection).record(callback, event, subscriptions)
        )

    def quarantine(self, callback: Callback, problem: str) -> None:
        self._writer.run(lambda connection: Recording(connection).quarantine(callback, problem))

    def reopen(self, callback_id: int, event: Event, subs: Sequence[Subscription]) -> Outcome:
        stored = self.callback(callback_id)
        return self._writer.run(
            lambda connection: Recording(connection).reopen(stored, event, subs, now_ms())
        )

    # -- the way out

    def claim(self, worker: str, now: int, lease_until: int, limit: int) -> list[Delivery]:
        due_at = self.next_due_at()
        if due_at is None or due_at > now:
            return []  # asked before any write: an idle worker costs no sync
        found = self._writer.run(
            lambda connection: connection.execute(
                _CLAIM, {"worker": worker, "now": now, "until": lease_until, "limit": limit}
            ).fetchall()
        )
        wanted = [row["id"] for row in found]
        return sorted(self._deliveries_where(rows.any_of("d.id", wanted), wanted), key=rows.by_id)

    def expired(self, now: int) -> list[Delivery]:
        return self._deliveries_where("d.state = 'claimed' and d.due_at <= ?", [now])

    def renew(self, deliveries: Sequence[Delivery], lease_until: int) -> None:
        held = [(lease_until, delivery.id, delivery.attempts) for delivery in deliveries]
        self._writer.run(lambda connection: connection.executemany(_RENEW, held))

    def settle(
        self,
        delivery: Delivery,
        attempt: Attempt,
        state: State,
        due_at: int | None,
        files: Sequence[File] = (),
    ) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            ended_at = None if state is State.PENDING else attempt.ended_at
            claim = (delivery.id, delivery.attempts, attempt.outcome, attempt.ended_at)
            settled = connection.execute(_SETTLE, (state, due_at, ended_at, *claim)).rowcount
            if not settled:
                return False
            connection.execute(_INSERT_ATTEMPT, (delivery.id, *rows.of_attempt(attempt)))
            connection.executemany(
                _UPSERT_FILE, [(delivery.id, *rows.of_file(file)) for file in files]
            )
            if ended_at is not None:
                connection.execute(_RELEASE_WAITING, (ended_at, delivery.id))
            return True

        return self._writer.run(work)

    def told(self, delivery: Delivery) -> Told:
        task = self.task(delivery.task_id)
        with self._read() as connection:
            row = connection.execute(_TRANSITION_OF, (delivery.id,)).fetchone()
            files = connection.execute(_FILES_OF_TRANSITION, (row["id"],)).fetchall()
        notice = Notice(task, rows.transition(row), files=tuple(map(rows.file, files)))
        callback = self.callback(row["callback"]).callback if row["callback"] else None
        return Told(notice, callback)

    def redeliver(self, delivery_id: int, now: int) -> None:
        changed = self._writer.run(
            lambda connection: connection.execute(_REDELIVER, (now, delivery_id)).rowcount
        )
        if not changed:
            raise NotFound(f"no delivery {delivery_id} that has ended")

    def next_due_at(self) -> int | None:
        with self._read() as connection:
            row = connection.execute(_NEXT_DUE).fetchone()
        return None if row is None else int(row["due_at"])

    def wait_for_commit(self, timeout: float, stop: Signal) -> None:
        with self._read() as connection:
            # What was committed since this thread's last wait ended counts: no wake-up is missed
            # between looking for work and waiting for more.
            before = getattr(self._readers, "version", None)
            rounds = max(1, int(timeout / POLL_EVERY))
            for _ in range(rounds):
                self._readers.version = _data_version(connection)
                if self._readers.version != before or stop.wait(POLL_EVERY):
                    return

    # -- who is at work

    def heartbeat(self, name: str, kind: str, now: int) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_HEARTBEAT, (name, kind, now))
            connection.execute("delete from processes where seen_at < ?", (now - 86_400_000,))

        self._writer.run(work)

    def seen(self, kind: str) -> int | None:
        with self._read() as connection:
            row = connection.execute(
                "select max(seen_at) as seen_at from processes where kind = ?", (kind,)
            ).fetchone()
        return None if row["seen_at"] is None else int(row["seen_at"])

    # -- looking

    def task(self, task_id: str) -> Task:
        with self._read() as connection:
            row = connection.execute("select * from tasks where id = ?", (task_id,)).fetchone()
        if row is None:
            raise NotFound(f"no task {task_id}")
        return rows.task(row)

    def history(self, task_id: str) -> TaskHistory:
        task = self.task(task_id)
        with self._read() as connection:
            transitions = connection.execute(_TRANSITIONS_OF_TASK, (task_id,)).fetchall()
            attempts = connection.execute(_ATTEMPTS_OF_TASK, (task_id,)).fetchall()
            files = connection.execute(_FILES_OF_TASK, (task_id,)).fetchall()
        everything = 10_000
        return TaskHistory(
            task=task,
            transitions=tuple(map(rows.transition, transitions)),
            callbacks=tuple(reversed(self.callbacks(task_id=task_id, limit=everything))),
            deliveries=tuple(reversed(self.deliveries(task_id=task_id, limit=everything))),
            attempts=rows.grouped(attempts, rows.attempt),
            files=rows.grouped(files, rows.file),
        )

    def tasks(
        self,
        *,
        status: Status | None = None,
        provider: str | None = None,
        reference: str | None = None,
        limit: int = 50,
    ) -> list[Task]:
        where, values = rows.filters(status=status, provider=provider, reference=reference)
        sql = f"select * from tasks where {where} order by seq desc limit ?"  # noqa: S608 - fixed column names
        with self._read() as connection:
            return [rows.task(row) for row in connection.execute(sql, [*values, limit])]

    def callbacks(
        self, *, task_id: str | None = None, outcome: Outcome | None = None, limit: int = 50
    ) -> list[StoredCallback]:
        where, values = rows.filters(**{"t.id": task_id, "c.outcome": outcome})
        sql = f"{_CALLBACKS} where {where} order by c.id desc limit ?"
        with self._read() as connection:
            return [rows.callback(row) for row in connection.execute(sql, [*values, limit])]

    def callback(self, callback_id: int) -> StoredCallback:
        with self._read() as connection:
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
        where, values = rows.filters(**{"t.id": task_id, "d.hook": hook, "d.state": state})
        return self._deliveries_where(f"{where} order by d.id desc limit {int(limit)}", values)

    def backlog(self, now: int) -> Backlog:
        with self._read() as connection:
            due = connection.execute(_BACKLOG, (now,)).fetchone()
            dead = connection.execute(_DEAD).fetchone()
        return Backlog(due=due["due"], dead=dead["dead"], oldest_due_at=due["oldest"])

    # -- inside

    def _deliveries_where(self, where: str, values: Sequence[Any]) -> list[Delivery]:
        with self._read() as connection:
            found = connection.execute(f"{_DELIVERIES} where {where}", values).fetchall()
        return [rows.delivery(row) for row in found]

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """This thread's reading connection. Raises StoreUnavailable."""
        try:
            connection = getattr(self._readers, "connection", None)
            if connection is None:
                if not self._path.exists():  # connecting would make an empty file
                    raise StoreUnavailable(f"{self._path} does not exist; run: receiver migrate")
                connection = self._readers.connection = connect(self._path, read_only=True)
            yield connection
        except sqlite3.Error as error:
            with closing(self._readers.connection):
                self._readers.connection = None
            raise StoreUnavailable(f"could not read {self._path}: {error}") from error


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma data_version").fetchone()[0])


# Oldest first. A claimed delivery whose lease ran out is not taken from here: the worker ends its
# attempt as abandoned first, so that one which kills its worker each time dies in the end.
_CLAIM = """
update deliveries set state = 'claimed', attempts = attempts + 1, worker = :worker, due_at = :until
where id in (
  select id from deliveries where state = 'pending' and due_at <= :now order by due_at limit :limit
)
returning id
"""

# The number of attempts is the fence: each claim has its own, so a claim that was lost changes
# nothing. An attempt is abandoned only while its lease is out: its worker may have come back.
_RENEW = "update deliveries set due_at = ? where id = ? and attempts = ? and state = 'claimed'"
_SETTLE = """
update deliveries set state = ?1, due_at = ?2, ended_at = ?3, worker = null
where id = ?4 and attempts = ?5 and state = 'claimed' and (?6 <> 'abandoned' or due_at <= ?7)
"""
_INSERT_ATTEMPT = """
insert into attempts (delivery, number, started_at, ended_at, outcome, answer)
values (?, ?, ?, ?, ?, ?)
"""
_UPSERT_FILE = """
insert into files (delivery, media_index, url, sha256, size, content_type, thumbnail)
values (?, ?, ?, ?, ?, ?, ?)
on conflict (delivery, media_index) do update set
  url = excluded.url, sha256 = excluded.sha256, size = excluded.size,
  content_type = excluded.content_type, thumbnail = excluded.thumbnail
"""
_RELEASE_WAITING = """
update deliveries set due_at = ?1
from (select transition, hook from deliveries where id = ?2) as ended
where deliveries.transition = ended.transition and deliveries.after = ended.hook
  and deliveries.state = 'pending' and deliveries.due_at is null
"""
_REDELIVER = """
update deliveries set state = 'pending', due_at = ?, ended_at = null, retries_from = attempts
where id = ? and state in ('delivered', 'dead')
"""
_NEXT_DUE = """
select due_at from deliveries where state in ('pending', 'claimed') and due_at is not null
order by due_at limit 1
"""
_BACKLOG = """
select count(*) as due, min(due_at) as oldest from deliveries
where state in ('pending', 'claimed') and due_at <= ?
"""
_DEAD = "select count(*) as dead from deliveries where state = 'dead'"
_HEARTBEAT = """
insert into processes (name, kind, seen_at) values (?, ?, ?)
on conflict (name) do update set seen_at = excluded.seen_at
"""
_DELIVERIES = """
select d.*, t.id as task_id, tr.status as status
from deliveries d join transitions tr on tr.id = d.transition join tasks t on t.seq = tr.task
"""
_CALLBACKS = """
select c.*, t.id as task_id, t.provider as provider
from callbacks c join tasks t on t.seq = c.task
"""
_TRANSITION_OF = """
select tr.* from transitions tr join deliveries d on d.transition = tr.id where d.id = ?
"""
_TRANSITIONS_OF_TASK = """
select tr.* from transitions tr join tasks t on t.seq = tr.task where t.id = ? order by tr.id
"""
_FILES_OF_TRANSITION = """
select f.* from files f join deliveries d on d.id = f.delivery where d.transition = ?
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
