"""Waits for the end of a task, and queries the provider if no callback can be expected."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from receiver.clock import now_ms
from receiver.deliveries import File, State
from receiver.events import Media
from receiver.serializers.outputs import files_of_history, media_of_history
from receiver.stores import Store
from receiver.tasks import Task
from submitter.errors import ProviderError
from submitter.providers import Provider
from submitter.queries import query
from submitter.session import Session

POLL_EVERY = 0.2  # seconds, for stores that do not notify us of commits
QUERY_EVERY = 3.0  # seconds
DOWNLOADED_WITHIN = 10.0  # seconds after the end of a task


@dataclass(frozen=True, slots=True)
class Follower:
    """Follows tasks of one account. Each callable is called once for each new value."""

    session: Session
    adapter: Provider
    on_status: Callable[[Task], None] = lambda _: None
    on_problem: Callable[[str], None] = lambda _: None  # why a query failed
    query_every: float = QUERY_EVERY  # seconds
    clock: Callable[[], float] = time.monotonic

    def follow(self, task: Task, timeout: float) -> Task:
        """Return the task when it has ended, or after `timeout` seconds. Raises StoreError."""
        ends_at = self.clock() + timeout
        query_at = self.clock() + self.query_every
        last_status, last_problem = None, ""
        while True:
            task = self.session.store.queries.task(task.id)
            if task.status is not last_status:
                self.on_status(task)
                last_status = task.status
            if task.status.is_terminal or self.clock() >= ends_at:
                return task
            if self.clock() >= query_at and _needs_query(task):
                last_problem = self._query(task, last_problem)
                query_at = self.clock() + self.query_every
            else:
                self.session.store.database.wait_for_commit(POLL_EVERY, threading.Event())

    def _query(self, task: Task, last_problem: str) -> str:
        """Query the provider; return the problem, or "". The next query may succeed."""
        try:
            query(self.session.ingest, self.adapter, task)
        except ProviderError as error:
            if str(error) != last_problem:
                self.on_problem(str(error))
            return str(error)
        return ""


@dataclass(frozen=True, slots=True)
class TaskWithOutputs(Task):
    """A task with its outputs, and the files that download hooks have stored so far.

    `files` contains at most one file for each output; `media_index` is the output's `index`.
    """

    media: tuple[Media, ...] = ()
    files: tuple[File, ...] = ()


def with_outputs(store: Store, task: Task) -> TaskWithOutputs:
    """Return the task with the recorded data of its outputs. Raises StoreError."""
    history = store.queries.history(task.id)
    values = {field.name: getattr(history.task, field.name) for field in fields(Task)}
    files = {file.media_index: file for file in reversed(files_of_history(history))}
    media = media_of_history(history)
    return TaskWithOutputs(**values, media=media, files=tuple(files[i] for i in sorted(files)))


def _needs_query(task: Task) -> bool:
    """Return whether no callback is expected, or the expected one is late."""
    is_late = task.deadline_at is not None and now_ms() >= task.deadline_at
    return not task.expects_callback or is_late


def wait_for_downloads(
    store: Store,
    download_hooks: frozenset[str],
    task: Task,
    timeout: float = DOWNLOADED_WITHIN,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until the deliveries of the task to these hooks have ended, or `timeout` seconds.

    Without a running worker, they remain pending.
    """
    ends_at = clock() + timeout
    while download_hooks and clock() < ends_at:
        is_open = any(
            delivery.hook in download_hooks
            and delivery.status == task.status
            and delivery.state in (State.PENDING, State.CLAIMED)
            for delivery in store.lists.deliveries(task_id=task.id)
        )
        if not is_open:
            return
        store.database.wait_for_commit(POLL_EVERY, threading.Event())
