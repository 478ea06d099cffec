"""Follows a task on record until it ends, and asks the provider where no callback can tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from receiver.clock import now_ms
from receiver.deliveries import State
from receiver.stores import Store
from receiver.tasks import Task
from submitter import reconcile
from submitter.errors import ProviderError
from submitter.providers import Provider
from submitter.record import Record

LOOK_EVERY = 0.2  # seconds, where no commit wakes us
ASK_EVERY = 3.0  # seconds
PICTURE_WITHIN = 10.0  # seconds after the end


@dataclass(frozen=True, slots=True)
class Follower:
    """`changed` hears each new status once, `trouble` each new reason why asking failed."""

    record: Record
    room: Provider
    changed: Callable[[Task], None] = lambda _: None
    trouble: Callable[[str], None] = lambda _: None
    ask_every: float = ASK_EVERY  # seconds
    clock: Callable[[], float] = time.monotonic

    def follow(self, task: Task, timeout: float) -> Task:
        """The task as it ended, or as it stands after `timeout` seconds. Raises StoreError."""
        ends_at = self.clock() + timeout
        ask_at = self.clock() + self.ask_every
        told, complaint = None, ""
        while True:
            task = self.record.store.queries.task(task.id)
            if task.status is not told:
                self.changed(task)
                told = task.status
            if task.status.is_terminal or self.clock() >= ends_at:
                return task
            if self.clock() >= ask_at and self._must_ask(task):
                complaint = self._ask(task, complaint)
                ask_at = self.clock() + self.ask_every
            else:
                self.record.store.database.wait_for_commit(LOOK_EVERY, threading.Event())

    def _must_ask(self, task: Task) -> bool:
        """No callback can come, or it should have come by now."""
        is_late = task.deadline_at is not None and now_ms() >= task.deadline_at
        return not task.expects_callback or is_late

    def _ask(self, task: Task, last_complaint: str) -> str:
        """Ask, and return why that failed. It may work the next time: the timeout is the end."""
        try:
            reconcile.ask(self.record.ingest, self.room, task)
        except ProviderError as error:
            if str(error) != last_complaint:
                self.trouble(str(error))
            return str(error)
        return ""


def wait_for_downloads(
    store: Store,
    downloads: frozenset[str],
    task: Task,
    within: float = PICTURE_WITHIN,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Sleep until the downloads of the task's end have ended, but no longer than `within` seconds.

    Someone has to make them: without a worker they stay pending.
    """
    ends_at = clock() + within
    while downloads and clock() < ends_at:
        open_ones = [
            delivery
            for delivery in store.lists.deliveries(task_id=task.id)
            if delivery.hook in downloads
            and delivery.status == task.status
            and delivery.state in (State.PENDING, State.CLAIMED)
        ]
        if not open_ones:
            return
        store.database.wait_for_commit(LOOK_EVERY, threading.Event())
