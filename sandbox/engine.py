"""The task engine that all providers share: it creates tasks, advances them and sends callbacks."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from sandbox.bounded_store import BoundedStore
from sandbox.clock import now_ms
from sandbox.scenarios.faults import AnswerFault
from sandbox.try_on_picture import PictureError
from sandbox.workers import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.callback_sender import CallbackSender
    from sandbox.outgoing_callbacks import OutgoingCallback
    from sandbox.result_pictures import ResultPictures
    from sandbox.scenarios.scenario import Queue, Scenario

KEPT = 10_000
THREADS = 4
# 18 digits that grow with time, like recent Kling ids; always above 2**53.
ID_EPOCH_MS = 1_704_067_200_000
ID_BITS = 22
UNUSABLE_INPUT = (
    "The resolution or aspect ratio of the input image is invalid. "
    "Please ensure it meets the required specifications."
)


class Status(StrEnum):
    """A task's status; each provider adapter spells it in its own way."""

    SUBMITTED = "submitted"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED)


@dataclass(frozen=True)
class CreateRequest:
    """A valid create request. Pictures are decoded bytes."""

    provider: str
    model: str
    human: bytes
    cloth: bytes
    callback_url: str | None = None
    external_task_id: str | None = None
    outputs: int = 1  # pictures


@dataclass(frozen=True)
class Task:
    """A task. Times are Unix milliseconds."""

    provider: str
    task_id: str
    external_task_id: str | None
    model: str
    callback_url: str | None
    scenario: Scenario
    created_at: int
    updated_at: int
    outputs: int = 1  # pictures
    status: Status = Status.SUBMITTED
    reason: str = ""
    result_url: str | None = None
    result_size: tuple[int, int] | None = None  # width and height in pixels

    @property
    def result_urls(self) -> list[str]:
        """Return the URLs of the outputs in callbacks."""
        if self.result_url is None:
            return []
        count = max(self.outputs, 2 if self.scenario.has_two_outputs else 1)
        more = [f"{self.result_url}&Output={number}" for number in range(2, count + 1)]
        return [self.result_url, *more]

    @property
    def queried_urls(self) -> list[str]:
        """Return the URLs in the response to a query: fresh ones if those in callbacks have
        expired.
        """
        fault = self.scenario.result
        if fault is None or not fault.is_healed_by_a_query:
            return self.result_urls
        return [f"{url}&Fresh=1" for url in self.result_urls]

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "scenario": self.scenario.name, "status": self.status.value}


class TooManyRunningError(Exception):
    """The account already runs as many tasks as it may."""


class ExternalIdTakenError(Exception):
    """Another task of the account has the same external id."""


class Dialect(Protocol):
    """Builds one provider's callbacks."""

    def callback(self, task: Task, url: str) -> OutgoingCallback:
        """Return the callback to `url` with the current state of `task`."""


class Engine:
    """Runs tasks. `pace`: seconds that a task stays `submitted`, and then `processing`."""

    def __init__(
        self,
        queue: Queue,
        sender: CallbackSender,
        gallery: ResultPictures,
        *,
        pace: float,
        max_running: int,
    ) -> None:
        self._queue = queue
        self._sender = sender
        self._gallery = gallery
        self._pace = pace
        self._max_running = max_running
        self._dialects: dict[str, Dialect | None] = {}
        self.calls_back = True
        self.on_create: Callable[[Scenario], None] = lambda _: None
        self._tasks: BoundedStore[str, Task] = BoundedStore(KEPT)
        self._external: dict[tuple[str, str], str] = {}
        # of running tasks only: pictures of people are dropped at the end
        self._orders: dict[str, CreateRequest] = {}
        self._running: Counter[str] = Counter()
        self._under_way: set[str] = set()
        self._last_id = 0
        self._lock = threading.Lock()
        self._scheduler = Scheduler("task", THREADS)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.stop()

    def speak(self, provider: str, dialect: Dialect | None) -> None:
        """Add a provider. Without a dialect it sends no callbacks."""
        self._dialects[provider] = dialect

    @property
    def providers(self) -> list[str]:
        return list(self._dialects)

    def submit(self, order: CreateRequest) -> Task:
        """Create the task; raise TooManyRunningError or ExternalIdTakenError."""
        with self._lock:
            task = self._admit(order)  # checked first, because a refused request creates no task
        self.on_create(task.scenario)
        self._send_callback(task)
        self._scheduler.after(self._pace, lambda: self._process(task))
        return task

    def find(self, provider: str, key: str) -> Task | None:
        """Return the provider's task whose id or external id is `key`."""
        task = self._tasks.get(key) or self._tasks.get(self._external.get((provider, key), ""))
        return task if task and task.provider == provider else None

    def is_over(self, task_id: str) -> bool:
        """Return whether the task has ended and its final callback was handed to the sender."""
        with self._lock:
            return task_id not in self._under_way

    def task(self, task_id: str) -> Task | None:
        """Return the task with this id, of any provider."""
        return self._tasks.get(task_id)

    def tasks(self, provider: str | None = None) -> list[Task]:
        """Return the tasks, newest first."""
        newest_first = reversed(self._tasks.values())
        return [task for task in newest_first if provider in (None, task.provider)]

    def _admit(self, order: CreateRequest) -> Task:
        external = order.external_task_id
        if external is not None and (order.provider, external) in self._external:
            raise ExternalIdTakenError(external)
        if self._running[order.provider] >= self._max_running:
            raise TooManyRunningError
        task = self._new_task(order)
        if task.scenario.answer is AnswerFault.BUSY:
            raise TooManyRunningError
        self._running[order.provider] += 1
        if external is not None:
            self._external[order.provider, external] = task.task_id
        self._orders[task.task_id] = order
        self._under_way.add(task.task_id)
        self._keep(task)
        return task

    def _new_task(self, order: CreateRequest) -> Task:
        now = now_ms()
        self._last_id = max(self._last_id + 1, (now - ID_EPOCH_MS) << ID_BITS)
        return Task(
            provider=order.provider,
            task_id=str(self._last_id),
            external_task_id=order.external_task_id,
            model=order.model,
            callback_url=order.callback_url,
            outputs=order.outputs,
            scenario=self._queue.take(order.provider),
            created_at=now,
            updated_at=now,
        )

    def _keep(self, task: Task) -> None:
        for gone in self._tasks.put(task.task_id, task):
            if gone.external_task_id is not None:
                self._external.pop((gone.provider, gone.external_task_id), None)

    def _process(self, task: Task) -> None:
        moved = self._move(task, status=Status.PROCESSING)
        self._scheduler.after(self._pace, lambda: self._finish(moved))

    def _finish(self, task: Task) -> None:
        order = self._orders.pop(task.task_id)
        ended = self._outcome(task, order)
        # before the final status: a client that sees it may create the next task immediately
        with self._lock:
            self._running[task.provider] -= 1
        self._move(task, **ended)
        with self._lock:
            self._under_way.discard(task.task_id)

    def _outcome(self, task: Task, order: CreateRequest) -> dict[str, Any]:
        if task.scenario.failure is not None:
            return {"status": Status.FAILED, "reason": task.scenario.failure}
        try:
            name = self._gallery.make(order.human, order.cloth)
        except PictureError:
            return {"status": Status.FAILED, "reason": UNUSABLE_INPUT}
        made_at = now_ms()
        url = self._gallery.url(name, task.task_id, made_at)
        return {
            "status": Status.SUCCEEDED,
            "result_url": url,
            "result_size": self._gallery.size(name),
            "updated_at": made_at,
        }

    def _move(self, task: Task, **changes: Any) -> Task:
        moved = replace(task, **{"updated_at": now_ms(), **changes})
        with self._lock:
            self._keep(moved)
        self._send_callback(moved)
        return moved

    def _send_callback(self, task: Task) -> None:
        dialect = self._dialects[task.provider]
        if task.callback_url is None or dialect is None or not self.calls_back:
            return
        callback = dialect.callback(task, task.callback_url)
        self._sender.send(task.scenario.plan(callback))
