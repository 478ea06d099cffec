"""The way in: what providers said, in one commit with what it moves and whom it concerns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from receiver.clock import now_ms
from receiver.deliveries import Subscription
from receiver.events import Callback, Event
from receiver.stores.base import StoredCallback
from receiver.stores.group_commit import Write
from receiver.stores.sql.recording import Recording
from receiver.stores.sql.session import Rooms, Session
from receiver.tasks import Outcome, Task


class RolledBack(Exception):
    """Rolls the transaction of a dry run back, and carries its outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Inbox(Rooms):
    """See `stores.base.Inbox`."""

    def create_task(self, task: Task) -> None:
        self._write_about(task.id, lambda connection: Recording(connection).create(task))

    def record(
        self,
        callback: Callback,
        event: Event,
        subscriptions: Sequence[Subscription],
        *,
        confirm: bool = False,
        shares_ids: bool = True,
    ) -> Outcome:
        work = _recording(callback, event, subscriptions, confirm=confirm, shares_ids=shares_ids)
        return self._write_about(callback.task_id, work)

    def submit(
        self,
        callback: Callback,
        event: Event,
        subscriptions: Sequence[Subscription],
        *,
        confirm: bool = False,
        shares_ids: bool = True,
    ) -> Write[Any, Outcome]:
        if callback.task_id is None:
            raise ValueError("a callback without a task id cannot be submitted; use `record`")
        work = _recording(callback, event, subscriptions, confirm=confirm, shares_ids=shares_ids)
        return self._submit_about(callback.task_id, work)

    def quarantine(self, callback: Callback, problem: str) -> None:
        self._write_about(
            callback.task_id,
            lambda connection: Recording(connection).quarantine(callback, problem),
        )

    def reopen(
        self,
        stored: StoredCallback,
        event: Event,
        subscriptions: Sequence[Subscription],
        *,
        confirm: bool = False,
        shares_ids: bool = True,
        accept: bool = False,
        dry_run: bool = False,
    ) -> Outcome:
        def work(connection: Session) -> Outcome:
            outcome = Recording(connection, subscriptions).reopen(
                stored, event, now_ms(), confirm=confirm, shares_ids=shares_ids, accept=accept
            )
            if dry_run:
                raise RolledBack(outcome)
            return outcome

        try:
            return self._write(work)
        except RolledBack as dry:
            return dry.outcome

    def give_up(self, task_id: str, now: int, subscriptions: Sequence[Subscription]) -> None:
        self._write(lambda connection: Recording(connection, subscriptions).give_up(task_id, now))


def _recording(
    callback: Callback,
    event: Event,
    subscriptions: Sequence[Subscription],
    *,
    confirm: bool,
    shares_ids: bool,
) -> Callable[[Session], Outcome]:
    return lambda session: Recording(session, subscriptions).record(
        callback, event, confirm=confirm, shares_ids=shares_ids
    )
