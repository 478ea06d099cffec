"""What `record` writes on SQLite: runs inside the writer's transaction, on its connection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from receiver.deliveries import Subscription
from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event
from receiver.stores.base import StoredCallback
from receiver.tasks import Outcome, Status, Task, Trust, judge

CONFIRMED_WITHIN = 90_000  # ms; an adopted task whose callbacks stop is asked about after that


class Recording:
    """One piece of work for the record, in the transaction that is open on `connection`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def create(self, task: Task) -> None:
        """A new task with its `created` transition. Raises ValueError if the id is taken."""
        try:
            seq = self._insert_task(task)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"task {task.id} is on record already") from error
        self._connection.execute(
            _INSERT_TRANSITION,
            (seq, Status.CREATED, None, task.created_at, task.created_at, Trust.QUERIED, False),
        )

    def record(
        self, callback: Callback, event: Event, subscriptions: Sequence[Subscription]
    ) -> Outcome:
        task = self._task(callback, event)
        outcome = _judge(task, event, callback.trust)
        repeated, callback_id = self._keep(task["seq"], callback, outcome)
        if repeated:
            return Outcome.DUPLICATE if outcome is Outcome.RECORDED else outcome
        self._apply(task, callback, callback_id, event, outcome, subscriptions)
        return outcome

    def quarantine(self, callback: Callback, problem: str) -> None:
        task = self._task(callback, None)
        self._keep(task["seq"], callback, Outcome.QUARANTINED, problem)

    def reopen(
        self,
        stored: StoredCallback,
        event: Event,
        subscriptions: Sequence[Subscription],
        now: int,
    ) -> Outcome:
        """Record a message that is kept already; its outcome is what it means today."""
        callback = stored.callback
        task = self._task(callback, event)
        outcome = _judge(task, event, callback.trust)
        if stored.outcome is Outcome.QUARANTINED or outcome is Outcome.RECORDED:
            self._connection.execute(
                "update callbacks set outcome = ?, problem = null where id = ?",
                (outcome, stored.id),
            )
        self._apply(task, callback, stored.id, event, outcome, subscriptions, now)
        return outcome

    def _apply(
        self,
        task: sqlite3.Row,
        callback: Callback,
        callback_id: int,
        event: Event,
        outcome: Outcome,
        subscriptions: Sequence[Subscription],
        now: int | None = None,
    ) -> None:
        """Move the task as the outcome says, and write the outbox."""
        if event.provider_task_id and task["provider_task_id"] is None:
            self._connection.execute(
                "update tasks set provider_task_id = ? where seq = ?",
                (event.provider_task_id, task["seq"]),
            )
        if outcome is Outcome.CONFLICT:
            self._connection.execute("update tasks set conflict = 1 where seq = ?", (task["seq"],))
        if outcome is not Outcome.RECORDED:
            return
        at = callback.received_at if now is None else now
        transition = self._move(task, callback, callback_id, event, at)
        self._fill_outbox(task, transition, event.status, at, subscriptions)

    def _move(
        self, task: sqlite3.Row, callback: Callback, callback_id: int, event: Event, at: int
    ) -> int:
        ended = event.status.is_terminal
        self._connection.execute(
            _MOVE_TASK,
            {
                "status": event.status,
                "trust": callback.trust,
                "reason": event.reason,
                "cost": event.cost,
                "at": at,
                "deadline_at": None if ended else task["deadline_at"],
                "seq": task["seq"],
            },
        )
        corrected = ended and Status(task["status"]).is_terminal
        return self._insert(
            _INSERT_TRANSITION,
            (
                task["seq"],
                event.status,
                callback_id,
                event.occurred_at,
                at,
                callback.trust,
                corrected,
            ),
        )

    def _fill_outbox(
        self,
        task: sqlite3.Row,
        transition: int,
        status: Status,
        at: int,
        subscriptions: Sequence[Subscription],
    ) -> None:
        provider, reference = task["provider"], task["reference"]
        hearing = [
            subscription
            for subscription in subscriptions
            if subscription.hears(status=status, provider=provider, reference=reference)
        ]
        hooks = {subscription.hook for subscription in hearing}
        for subscription in hearing:
            after = subscription.after if subscription.after in hooks else None
            due_at = at if after is None else None
            self._connection.execute(
                _INSERT_DELIVERY, (transition, subscription.hook, after, due_at)
            )

    def _task(self, callback: Callback, event: Event | None) -> sqlite3.Row:
        """The task on record; one that we do not know is adopted: its token was ours."""
        row = self._find(callback)
        if row is None:
            reference = event.external_task_id if event else None
            self._insert_task(
                Task(
                    id=callback.task_id,
                    provider=callback.provider,
                    status=Status.CREATED,
                    created_at=callback.received_at,
                    updated_at=callback.received_at,
                    reference=reference if reference != callback.task_id else None,
                    deadline_at=callback.received_at + CONFIRMED_WITHIN,
                )
            )
            row = self._find(callback)
        assert row is not None  # noqa: S101 - inserted above, in the same transaction
        return row

    def _find(self, callback: Callback) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(
            "select * from tasks where id = ?", (callback.task_id,)
        ).fetchone()
        if row is not None and row["provider"] != callback.provider:
            raise NotTheProtocol(f"task {callback.task_id} is a task of {row['provider']}")
        return row

    def _insert_task(self, task: Task) -> int:
        return self._insert(
            _INSERT_TASK,
            (
                task.id,
                task.provider,
                task.account,
                task.provider_task_id,
                task.reference,
                task.status,
                task.trust,
                task.created_at,
                task.updated_at,
                task.deadline_at,
            ),
        )

    def _keep(
        self, task: int, callback: Callback, outcome: Outcome, problem: str | None = None
    ) -> tuple[bool, int]:
        """Keep the message; whether the same bytes were there already, and its row."""
        row = self._connection.execute(
            _KEEP_CALLBACK,
            (
                task,
                callback.source,
                callback.trust,
                outcome,
                callback.received_at,
                callback.digest,
                problem,
                json.dumps(dict(callback.headers), ensure_ascii=False),
                callback.body,
            ),
        ).fetchone()
        return row["repeats"] > 0, row["id"]

    def _insert(self, sql: str, values: tuple[object, ...]) -> int:
        row_id = self._connection.execute(sql, values).lastrowid
        assert row_id is not None  # noqa: S101 - SQLite sets it after every insert
        return row_id


def _judge(task: sqlite3.Row, event: Event, trust: Trust) -> Outcome:
    return judge(Status(task["status"]), Trust(task["trust"]), event.status, trust)


_INSERT_TASK = """
insert into tasks (id, provider, account, provider_task_id, reference, status, trust, created_at,
  updated_at, deadline_at)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_TRANSITION = """
insert into transitions (task, status, callback, occurred_at, recorded_at, trust, corrected)
values (?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_DELIVERY = "insert into deliveries (transition, hook, after, due_at) values (?, ?, ?, ?)"
_MOVE_TASK = """
update tasks set status = :status, trust = :trust, reason = :reason,
  cost = coalesce(:cost, cost), updated_at = :at, deadline_at = :deadline_at
where seq = :seq
"""
_KEEP_CALLBACK = """
insert into callbacks (task, source, trust, outcome, received_at, digest, problem, headers, body)
values (?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (task, digest) do update set repeats = repeats + 1
returning id, repeats
"""
