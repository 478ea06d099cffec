"""The rest of every store's contract: what pages for people show, at a bounded cost.

What is counted is kept by the database as it happens: reading it costs the same however long the
record is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from receiver.deliveries import Attempt, Delivery, File, State
from receiver.events import Callback
from receiver.tasks import Status, Task

if TYPE_CHECKING:
    from receiver.stores.base import Page, StoredCallback

OVERDUE_COUNTED = 1_000  # beyond that nobody needs the number
HOUR = 3_600_000  # ms
HOURS_KEPT = 48
SLOWEST = HOUR  # the bucket of what took five minutes or longer


@dataclass(frozen=True, slots=True)
class TaskCount:
    """How many tasks of a provider stand so. `status`: also `given_up`, for an open one."""

    provider: str
    status: str
    value: int


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """How many deliveries to a hook are in this state."""

    hook: str
    state: str
    value: int


@dataclass(frozen=True, slots=True)
class HourCount:
    """How often something happened in an hour (counted from 1970).

    `series`: `callbacks`, `succeeded`, `failed`, or `latency`; then `bucket` is the milliseconds
    that it was below.
    """

    hour: int
    provider: str
    series: str
    bucket: int
    value: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that was made of an output of a task, without the bytes of its thumbnail."""

    task_id: str
    delivery: int
    file: File
    has_thumbnail: bool


def without_hook(counts: Iterable[DeliveryCount], hooks: Collection[str]) -> dict[str, int]:
    """Return how many deliveries wait for each hook that is not in the hooks file."""
    return {
        one.hook: one.value
        for one in counts
        if one.state == State.PENDING and one.value and one.hook not in hooks
    }


class Overview(Protocol):
    """What is counted."""

    def task_counts(self) -> list[TaskCount]:
        """Every task is in one of them."""
        ...

    def delivery_counts(self) -> list[DeliveryCount]:
        """Every delivery is in one of them."""
        ...

    def hours(self, since: int) -> list[HourCount]:
        """What happened in this hour and later, oldest first; two days are kept."""
        ...

    def last_callbacks(self) -> dict[str, int]:
        """When a callback, other than a byte-identical repeat, last came; by provider."""
        ...

    def overdue_count(self, now: int) -> int:
        """How many tasks wait to be asked about, counted up to 1,000."""
        ...


class Browsing(Protocol):
    """Pages of the record with what belongs to their rows."""

    def page_of_standing(
        self,
        statuses: Sequence[Status],
        *,
        before: int | None,
        limit: int,
        provider: str | None = None,
        reference: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Page[Task]:
        """Tasks that stand so, newest first, created since one instant and before another."""
        ...

    def tasks_by_id(self, task_ids: Sequence[str]) -> dict[str, Task]:
        """Those of these tasks that are on record."""
        ...

    def pictures(self, task_ids: Sequence[str]) -> dict[str, list[Picture]]:
        """The files of these tasks, by task."""
        ...

    def picture(self, delivery: int, media_index: str) -> File:
        """One file, with its thumbnail. Raises NotFound."""
        ...

    def results(self, task_ids: Sequence[str]) -> dict[str, Callback]:
        """The messages on which the successes of these tasks rest."""
        ...

    def attempts(self, deliveries: Sequence[Delivery]) -> dict[int, tuple[Attempt, ...]]:
        """The attempts at these deliveries, by delivery."""
        ...

    def page_of_quarantine(self, *, before: int | None, limit: int) -> Page[StoredCallback]:
        """Messages that were not understood, newest first."""
        ...
