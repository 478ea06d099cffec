"""The rest of every store's contract: endpoints, repair in bulk, refusals, and what is let go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from receiver.deliveries import File, State, Subscription
from receiver.endpoints import Alert, AlertKind, Endpoint
from receiver.observability.metrics import Sample

Change = Callable[[Endpoint], tuple[Endpoint, AlertKind | None]]
"""What an attempt does to its endpoint, and what people have to be told."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A request to the callback routes that was refused. `path` shows no token."""

    at: int
    address: str
    reason: str
    method: str
    path: str
    count: int = 1  # how many like it came at once


@dataclass(frozen=True, slots=True)
class DeliverySelection:
    """Which deliveries that ended are meant; None: any. Instants are integer milliseconds UTC."""

    state: State = State.DEAD
    hook: str | None = None
    provider: str | None = None
    status: str | None = None  # that was to be told
    task_id: str | None = None
    since: int | None = None  # the move was recorded then or later
    until: int | None = None  # or before


@dataclass(frozen=True, slots=True)
class RepairStep:
    """One step of a long repair. `next`: where the following one begins; None: it is done."""

    changed: int
    next: int | None


@dataclass(frozen=True, slots=True)
class PruneStep:
    """One step of `prune`. `next`: where the next one begins; None: done."""

    callbacks: int
    bytes: int  # of these
    next: tuple[int, int] | None
    inputs: int = 0  # pictures that were sent
    tasks: tuple[str, ...] = ()  # whose payloads were erased


class Texts(StrEnum):
    """Texts that `prune` erases although their task may have no callback with a body."""

    ANSWERS = "answers"  # of hooks
    REASONS = "reasons"  # of failed tasks


@dataclass(frozen=True, slots=True)
class UnfinishedErasure:
    """An erasure that was committed, while copies of the data remain in the database's files.

    `held_by` says what keeps them there, and how to find it.
    """

    since: int  # ms UTC
    held_by: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is left to do to forget a task."""

    task_id: str
    under_way: int  # attempts that still run: their files are not known yet
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Open:
    """A provider's tasks that have not ended; of all providers up to 10,000 are counted."""

    provider: str
    tasks: int
    awaited: int  # of these, those whose provider calls back
    overdue: int  # of these, those that have to be asked about now


class Endpoints(Protocol):
    """How the other sides of the hooks are."""

    def endpoints(self) -> list[Endpoint]:
        """Those that are known to fail, or are paused or disabled; a hook not named works."""
        ...

    def endpoint(self, hook: str) -> Endpoint:
        """One of them; one that works if nothing is known."""
        ...

    def hold(self, hook: str, now: int) -> None:
        """Make no delivery to this hook until `resume`: it waits, and costs no attempt."""
        ...

    def resume(self, hook: str, now: int | None = None) -> bool:
        """Close the circuit, whatever it was; False if it was closed.

        With `now`, the retries of its deliveries are due then at the latest. Deliveries that wait
        for another hook go on waiting.
        """
        ...

    def take_alerts(self, now: int, again_at: int) -> list[Alert]:
        """What people have to be told; given again at `again_at` unless it was sent."""
        ...

    def alert_sent(self, alert_id: int) -> None:
        """Forget the alert."""
        ...


class Repair(Protocol):
    """Redelivery of many, in steps of bounded size; with `dry_run` they are only counted."""

    def redeliver_all(
        self,
        wanted: DeliverySelection,
        now: int,
        *,
        after: int = 0,
        limit: int = 500,
        dry_run: bool = False,
    ) -> RepairStep:
        """Make up to `limit` deliveries that ended due again, by row key, those after `after`.

        Those of forgotten tasks are left.
        """
        ...

    def drop(self, hook: str, now: int, *, limit: int = 500) -> int:
        """Turn up to `limit` waiting deliveries of this hook into dead letters; return how many.

        Deliveries that wait for one of them become due.
        """
        ...

    def catch_up(
        self,
        subscription: Subscription,
        since: int,
        now: int,
        *,
        before: int | None = None,
        limit: int = 500,
        dry_run: bool = False,
    ) -> RepairStep:
        """Create the deliveries that a hook added later never had, for moves since that instant.

        Looks at up to `limit` moves by row key, newest first, those before `before`.
        """
        ...

    def quarantined(self, since: int, *, after: int = 0, limit: int = 500) -> list[int]:
        """Return up to `limit` row keys, after the key `after`, of callbacks in quarantine.

        The oldest come first; only callbacks received at `since` or later are returned.
        """
        ...


class Refusals(Protocol):
    """A bounded trace of refused requests."""

    def note_rejections(self, found: Sequence[Rejection]) -> None:
        """Keep these; only the newest 1,000 are kept."""
        ...

    def rejections(self, limit: int = 50) -> list[Rejection]:
        """Newest first."""
        ...


class Measures(Protocol):
    """What processes count, wherever they run; any of them can show all of it."""

    def measure(self, added: Sequence[Sample], newest: Sequence[Sample]) -> None:
        """Add the first to what is kept; of the second keep the greater value."""
        ...

    def measured(self) -> list[Sample]:
        """All that is kept, by name."""
        ...

    def open_tasks(self, now: int) -> list[Open]:
        """How many tasks are open, for each provider that has some."""
        ...


class Retention(Protocol):
    """Erases payloads past their retention period, and everything about a task on request."""

    def prune(
        self,
        older_than: int,
        *,
        after: tuple[int, int] | None = None,
        limit: int = 200,
        dead_too: bool = False,
    ) -> PruneStep:
        """Erase bodies, headers, answers and thumbnails of tasks that ended before that instant.

        Looks at up to `limit` callbacks. Keys, moves and deliveries stay: an old callback that
        comes again is a duplicate. A task with a delivery that is not delivered is left; with
        `dead_too` dead letters do not hold it.
        """
        ...

    def prune_texts(
        self,
        of: Texts,
        older_than: int,
        *,
        after: int = 0,
        limit: int = 200,
        dead_too: bool = False,
    ) -> RepairStep:
        """Erase the texts of tasks that `prune` would prune, looking at up to `limit` rows."""
        ...

    def prune_rows(self, older_than: int) -> int:
        """Delete old rows that belong to no task: rejections, alerts, test events, and
        idempotency keys that are no longer needed. Returns how many.
        """
        ...

    def finish_erasure(self) -> bool:
        """Remove what `prune` and `erase` left elsewhere in the database's files, and return True.

        Returns False while a reader uses an older snapshot; then `unfinished_erasure` describes it.
        Safe to repeat, by several processes.
        """
        ...

    def unfinished_erasure(self) -> UnfinishedErasure | None:
        """Return what `finish_erasure` still has to do; None if nothing."""
        ...

    def give_back(self, pages: int) -> int:
        """Return up to `pages` free pages to the file system; how many are left."""
        ...

    def close_task(self, task_id: str, now: int) -> Erasure:
        """First half of forgetting: from now on nothing is stored, queried or sent about the task.

        Deliveries that wait are dead. Raises NotFound. Safe to repeat.
        """
        ...

    def erase(self, task_id: str, now: int) -> bool:
        """Second half: bodies, answers, reference, files and thumbnails are gone from the record;
        keys, statuses and counters stay. Texts of other rows that repeat the reference or an id of
        the task are erased as well. Calls `finish_erasure` and returns its result; if it is True,
        `remove_remnants` was called as well. Raises NotFound. Safe to repeat.
        """
        ...

    def remove_remnants(self, reference: str) -> None:
        """Remove what the database left of an erased reference outside of rows.

        The erasure has to be finished.
        """
        ...


class Whole(Protocol):
    """The record as a whole, to be copied while nothing else uses it."""

    def is_empty(self) -> bool:
        """Is no task on record, nor a message of none?"""
        ...

    def count(self, table: str) -> int:
        """How many rows a table has."""
        ...

    def dump(self, table: str) -> Iterator[list[dict[str, Any]]]:
        """Every row by column, in the order of its key, some at a time."""
        ...

    def load(self, table: str, found: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows as they are, keys included."""
        ...

    def settle_sequences(self) -> None:
        """Let new row keys follow those that were loaded."""
        ...

    def digest(self, table: str) -> str:
        """The same for the same rows, whichever database holds them."""
        ...
