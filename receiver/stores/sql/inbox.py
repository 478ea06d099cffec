"""The way in: what providers said, in one commit with what it moves and whom it concerns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from receiver.clock import now_ms
from receiver.deliveries import Subscription
from receiver.events import Callback, Event
from receiver.stores.base import StoredCallback
from receiver.stores.group_commit import Write
from receiver.stores.sql.recording import Recording
from receiver.stores.sql.session import Session, SqlStoreBase
from receiver.tasks import QUERY_ADOPTED_AFTER, Outcome, Task


class RolledBack(Exception):
    """Rolls the transaction of a dry run back, and carries its outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Inbox(SqlStoreBase):
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
        query_after: int = QUERY_ADOPTED_AFTER,
    ) -> Outcome:
        recording = _Recording(subscriptions, confirm, shares_ids, query_after)
        work = recording.of(callback, event)
        return self._write_about(callback.task_id, work)

    def submit(
        self,
        callback: Callback,
        event: Event,
        subscriptions: Sequence[Subscription],
        *,
        confirm: bool = False,
        shares_ids: bool = True,
        query_after: int = QUERY_ADOPTED_AFTER,
    ) -> Write[Any, Outcome]:
        if callback.task_id is None:
            raise ValueError("a callback without a task id cannot be submitted; use `record`")
        recording = _Recording(subscriptions, confirm, shares_ids, query_after)
        work = recording.of(callback, event)
        return self._submit_about(callback.task_id, work)

    def quarantine(
        self, callback: Callback, problem: str, *, query_after: int = QUERY_ADOPTED_AFTER
    ) -> None:
        self._write_about(
            callback.task_id,
            lambda connection: Recording(connection, (), query_after).quarantine(callback, problem),
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
        query_after: int = QUERY_ADOPTED_AFTER,
    ) -> Outcome:
        def work(connection: Session) -> Outcome:
            outcome = Recording(connection, subscriptions, query_after).reopen(
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


@dataclass(frozen=True, slots=True)
class _Recording:
    """How messages are recorded: see `stores.base.Inbox.record`."""

    subscriptions: Sequence[Subscription]
    confirm: bool
    shares_ids: bool
    query_after: int

    def of(self, callback: Callback, event: Event) -> Callable[[Session], Outcome]:
        """Return the work that records this message."""
        return lambda session: Recording(session, self.subscriptions, self.query_after).record(
            callback, event, confirm=self.confirm, shares_ids=self.shares_ids
        )
