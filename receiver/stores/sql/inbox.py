"""The way in: stores what providers report, in one commit with its transition and deliveries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from receiver.clock import now_ms
from receiver.deliveries import Subscription
from receiver.errors import NotFound
from receiver.events import Callback, Event
from receiver.stores.group_commit import Write
from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.locks import LOCK_TASK
from receiver.stores.sql.recording import Recording
from receiver.stores.sql.rows import StoredCallback
from receiver.tasks import QUERY_ADOPTED_AFTER, Outcome, Task


class RolledBack(Exception):
    """Rolls the transaction of a dry run back, and carries its outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Inbox(Component):
    """Records tasks and what providers report about them."""

    def create_task(self, task: Task) -> None:
        """Put a new task on record, with its `created` transition, before the provider is called.

        Raises ValueError if the id is taken.
        """
        self._database.write_about(task.id, lambda session: Recording(session).create(task))

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
        """Store the message, record the transition if it is legal, and write one delivery for each
        matching subscription, all in one commit.

        A repeated status is recorded once. With `confirm`, no transition is recorded, and the task
        becomes due for a query. A task that is not on record is created. If the callback URL has no
        token, the task is found by either id. Raises NotTheProtocol for a task of another provider.

        A message that names another provider task than the one on record is a mismatch: it changes
        no status, and makes the task due for a query, at most once a minute. If the id has a higher
        source (see `IdSource`), it replaces the id on record instead, and the messages that named
        the old id become mismatches. For `shares_ids`, see `providers.base.Provider`.

        A task that is created becomes due for a query `query_after` ms after the message.
        """
        recording = _Recording(subscriptions, confirm, shares_ids, query_after)
        work = recording.of(callback, event)
        return self._database.write_about(callback.task_id, work)

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
        """Like `record`, but return a future instead of waiting for the commit.

        The caller has to start `writer`. The future can fail although the callback is valid, for
        example if another write of the same batch failed; then call `record`. Raises
        StoreUnavailable, and ValueError for a callback without a task id.
        """
        if callback.task_id is None:
            raise ValueError("a callback without a task id cannot be submitted; use `record`")
        recording = _Recording(subscriptions, confirm, shares_ids, query_after)
        work = recording.of(callback, event)
        return self._database.submit_about(callback.task_id, work)

    def quarantine(
        self, callback: Callback, problem: str, *, query_after: int = QUERY_ADOPTED_AFTER
    ) -> None:
        """Store a message that was not understood, and its problem. See `record`."""
        self._database.write_about(
            callback.task_id,
            lambda session: Recording(session, (), query_after).quarantine(callback, problem),
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
        """Like `record`, for a stored message that is parsed again.

        With `accept`, records a mismatch, and its id becomes the id of the task; raises
        NotAMismatch if the message is not a mismatch, and NotFound if the task was forgotten. With
        `dry_run`, rolls the transaction back and only returns the outcome.
        """

        def work(session: Session) -> Outcome:
            outcome = Recording(session, subscriptions, query_after).reopen(
                stored, event, now_ms(), confirm=confirm, shares_ids=shares_ids, accept=accept
            )
            if dry_run:
                raise RolledBack(outcome)
            return outcome

        try:
            return self._database.write(work)
        except RolledBack as dry:
            return dry.outcome

    def give_up(self, task_id: str, now: int, subscriptions: Sequence[Subscription]) -> None:
        """Stop asking about an open task: it keeps its status, and those who hear `given_up` are
        told once. Does nothing for a task that ended. Raises NotFound.
        """
        self._database.write(
            lambda session: Recording(session, subscriptions).give_up(task_id, now)
        )

    def keep_inputs(self, task_id: str, thumbnails: Mapping[str, bytes]) -> None:
        """Keep these; of a forgotten task nothing is kept. Safe to repeat. Raises NotFound."""

        def work(session: Session) -> None:
            # The lock comes first, so that `_KEEP` sees a task that was forgotten meanwhile.
            if session.execute_locked(LOCK_TASK, (task_id,)).fetchone() is None:
                raise NotFound(f"no task {task_id}")
            for name, thumbnail in thumbnails.items():
                session.execute(_KEEP, (name, thumbnail, task_id))

        self._database.write(work)


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


_KEEP = """
insert into inputs (task, name, thumbnail)
select seq, ?, ? from tasks
where id = ? and not exists (select 1 from forgotten where forgotten.task = tasks.seq)
on conflict (task, name) do update set thumbnail = excluded.thumbnail
"""
