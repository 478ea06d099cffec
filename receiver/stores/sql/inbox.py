"""Stores tasks and the messages of providers, each with its transition and deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

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


class RecordingOptions(TypedDict, total=False):
    """Options of `Inbox.record`, `submit` and `reopen`; see `Recording` for the defaults."""

    confirm: bool  # a final status counts only after a query
    shares_ids: bool  # see `providers.base.Provider`
    query_after: int  # ms from the message until the first query of a task that it creates


class RolledBack(Exception):
    """Rolls back the transaction of a dry run. Contains its outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Inbox(Component):
    """Records tasks, and the messages of providers about them."""

    def create_task(self, task: Task) -> None:
        """Store a new task with its `created` transition, before the provider is called.

        A trigger counts the task. Raises ValueError if the id exists.
        """
        self._database.write(lambda session: Recording(session).create(task), task.id)

    def record(
        self,
        callback: Callback,
        event: Event,
        subscriptions: Sequence[Subscription],
        **options: Unpack[RecordingOptions],
    ) -> Outcome:
        """Store a message with its transition and deliveries in one commit; return the outcome.

        The transition is recorded if the task may move to the status, and one delivery is written
        for each matching subscription. A repeated status is recorded once. With `confirm`, no
        transition is recorded, and the task becomes due for a query. A task that is not on record
        is created. If the callback URL has no token, the task is found by either id. Raises
        NotTheProtocol for a task of another provider.

        A message that names another provider task than the one on record is a mismatch: it changes
        no status, and makes the task due for a query, at most once a minute. If the id has a higher
        source (see `IdSource`), it replaces the id on record instead, and the messages that named
        the old id become mismatches.

        Triggers do a part of the work in the same transaction: they count tasks, callbacks,
        transitions and deliveries, and in PostgreSQL announce due deliveries to the job queue.
        """
        return self._database.write(
            lambda session: Recording(session, subscriptions, **options).record(callback, event),
            callback.task_id,
        )

    def submit(
        self,
        callback: Callback,
        event: Event,
        subscriptions: Sequence[Subscription],
        **options: Unpack[RecordingOptions],
    ) -> Write[Any, Outcome]:
        """Like `record`, but return a future instead of waiting for the commit.

        The caller has to start `writer`. The future can fail although the callback is valid, for
        example if another write of the same batch failed; then call `record`. Raises
        StoreUnavailable, and ValueError for a callback without a task id.
        """
        if callback.task_id is None:
            raise ValueError("a callback without a task id cannot be submitted; use `record`")
        return self._database.writer.submit(
            lambda session: Recording(session, subscriptions, **options).record(callback, event),
            callback.task_id,
            start=False,
        )

    def quarantine(
        self, callback: Callback, problem: str, *, query_after: int = QUERY_ADOPTED_AFTER
    ) -> None:
        """Store a message that could not be interpreted, with its problem; see `record`.

        A trigger counts the callback.
        """
        self._database.write(
            lambda session: Recording(session, (), query_after).quarantine(callback, problem),
            callback.task_id,
        )

    def reopen(
        self,
        stored: StoredCallback,
        event: Event,
        subscriptions: Sequence[Subscription],
        *,
        accept: bool = False,
        dry_run: bool = False,
        **options: Unpack[RecordingOptions],
    ) -> Outcome:
        """Record a stored message that was parsed again; return the outcome. See `record`.

        With `accept`, records a mismatch, and its id becomes the id of the task; raises
        NotAMismatch if the message is not a mismatch, and NotFound if the task was forgotten. With
        `dry_run`, rolls the transaction back and only returns the outcome.
        """

        def work(session: Session) -> Outcome:
            recording = Recording(session, subscriptions, **options)
            outcome = recording.reopen(stored, event, now_ms(), accept=accept)
            if dry_run:
                raise RolledBack(outcome)
            return outcome

        try:
            return self._database.write(work)
        except RolledBack as dry:
            return dry.outcome

    def give_up(self, task_id: str, now: int, subscriptions: Sequence[Subscription]) -> None:
        """Stop querying an open task, and write a delivery for each subscription to `given_up`.

        The task keeps its status, and the deliveries are written once. Does nothing for a task that
        has ended or was forgotten. Raises NotFound.
        """
        self._database.write(
            lambda session: Recording(session, subscriptions).give_up(task_id, now)
        )

    def keep_inputs(self, task_id: str, thumbnails: Mapping[str, bytes]) -> None:
        """Store the thumbnails of the inputs of a task, by name, unless the task was forgotten.

        Safe to repeat. Raises NotFound.
        """

        def work(session: Session) -> None:
            # The lock comes first, so that `_PUT_INPUT` sees whether the task was forgotten.
            if session.execute_locked(LOCK_TASK, (task_id,)).fetchone() is None:
                raise NotFound(f"no task {task_id}")
            for name, thumbnail in thumbnails.items():
                session.execute(_PUT_INPUT, (name, thumbnail, task_id))

        self._database.write(work)


_PUT_INPUT = """
insert into inputs (task, name, thumbnail)
select seq, ?, ? from tasks
where id = ? and not exists (select 1 from forgotten where forgotten.task = tasks.seq)
on conflict (task, name) do update set thumbnail = excluded.thumbnail
"""
