"""Queries a provider about a task, and decides when the next query is due."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from receiver import providers
from receiver.clock import now_ms
from receiver.errors import RequestRefused
from receiver.events import Callback, Source
from receiver.ingest import Ingest
from receiver.outgoing.retry import LONGEST_WAIT as LONGEST_PAUSE
from receiver.tasks import IdSource, Outcome, Task, Trust
from submitter.errors import NotFoundAtProvider, UnexpectedAnswer, WrongInput
from submitter.providers import Provider

if TYPE_CHECKING:
    from submitter.client import Answer

GIVE_UP_AGE = 86_400.0  # seconds; a task that is still open after a day is not expected to end
LONGEST_WAIT = 3_600.0  # seconds between two queries
DEFAULT_DEADLINE = 90.0  # seconds for a callback, before any duration has been measured
# Useful in support cases, and free of secrets, unlike cookies.
STORED_HEADERS = ("Content-Type", "Date", "X-Request-Id")


def query(ingest: Ingest, adapter: Provider, task: Task) -> Outcome:
    """Query the provider once and record its response durably; return the outcome.

    Raises ProviderError (NotFoundAtProvider if the provider has no such task) and
    StoreUnavailable.
    """
    answer = _fetch(adapter, task)
    if answer.quota is not None and answer.quota.remaining <= 0:
        latest = now_ms() + round(1000 * LONGEST_PAUSE)
        ingest.store.polling.pause(pause_key(task), min(answer.quota.reset_at, latest))
    try:
        return ingest.accept(callback_of(task, answer.body, Source.QUERY, answer.headers))
    except RequestRefused as error:
        message = f"the provider's response was not understood; it is kept in quarantine: {error}"
        unexpected = UnexpectedAnswer(message, http_status=answer.status, body=answer.body)
        raise unexpected.about(task.id) from error


def _fetch(adapter: Provider, task: Task) -> Answer:
    """Return the provider's response to a query of the task.

    An id that was only learnt from a callback may belong to another task, so it is tried after our
    own id. Tasks that other programs created do not have our id.
    """
    provider_task_id = task.id_at_provider
    is_reliable = task.id_source is not IdSource.CALLBACK
    if provider_task_id and (is_reliable or not adapter.finds_by_our_id):
        return adapter.fetch(provider_task_id=provider_task_id)
    try:
        return adapter.fetch(external_task_id=task.id)
    except (NotFoundAtProvider, WrongInput, UnexpectedAnswer):
        if not provider_task_id:
            raise
        return adapter.fetch(provider_task_id=provider_task_id)


def pause_key(task: Task) -> str:
    """Return the key under which the requests of the task's account are paused."""
    return f"{task.provider}:{task.account}"


def callback_of(
    task: Task, body: bytes, source: Source, headers: Mapping[str, str] = MappingProxyType({})
) -> Callback:
    """Return a response about the task, received now, as a callback without secrets."""
    callback = Callback(
        provider=task.provider,
        task_id=task.id,
        body=body,
        received_at=now_ms(),
        headers={name: headers[name] for name in STORED_HEADERS if name in headers},
        source=source,
        trust=Trust.QUERIED,
    )
    return providers.without_secrets(callback)


@dataclass(frozen=True, slots=True)
class QuerySchedule:
    """The schedule of queries for the tasks of one provider. All durations are in seconds.

    A task with callbacks is queried only when its callback is late. Other tasks are queried from
    the time at which they have usually ended, and often around that time.
    """

    usual: float  # from the creation of a task to its success
    has_callbacks: bool
    is_measured: bool = False  # `usual` was measured, not taken from the provider's documentation
    first_within: float | None = None  # the operator's limit for the first query
    kept_for: float = math.inf  # from the end of a task until its results are deleted

    @property
    def first(self) -> float:
        """Return the seconds from the creation of a task to the first query."""
        if not self.has_callbacks:
            first = _clamp(0.7 * self.usual, 1.0, 300.0)
        elif self.is_measured:
            first = _clamp(3 * self.usual, 30.0, 600.0)
        else:
            first = DEFAULT_DEADLINE
        limit = math.inf if self.first_within is None else self.first_within
        # A result must be fetched while it exists, with time left for another query.
        return min(first, limit, self.kept_for / 2)

    def next_wait(self, age: float) -> float | None:
        """Return the seconds until the next query of an open task, or None to give it up.

        The waits grow with the age of the task, up to an hour: they double for tasks with
        callbacks, and grow by a fifth for others.
        """
        if age >= GIVE_UP_AGE:
            return None
        share = 1.0 if self.has_callbacks else 0.2
        shortest = self.first if self.has_callbacks else _clamp(self.usual / 10, 1.0, 30.0)
        wait = _clamp(share * age, max(1.0, min(shortest, self.first)), LONGEST_WAIT)
        return min(wait, self.kept_for / 2, max(1.0, GIVE_UP_AGE - age))


def schedule_for(
    ingest: Ingest, adapter: Provider, *, expects_callback: bool, first_within: float | None
) -> QuerySchedule:
    """Return the schedule for the provider's tasks, using the measured duration if there is one."""
    measured = ingest.store.polling.usual_duration(adapter.name)
    usual = adapter.usual_seconds if measured is None else measured / 1000
    kept_for = providers.get(adapter.name).results_kept_for / 1000
    return QuerySchedule(usual, expects_callback, measured is not None, first_within, kept_for)


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))
