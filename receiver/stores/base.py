"""The contract of every store: one verb is one transaction, durable when it returns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event as Signal
from typing import Any, Generic, Protocol, TypeVar

from receiver.deliveries import Attempt, Delivery, File, Notice, State, Subscription, Transition
from receiver.events import Callback, Event
from receiver.stores.access import Access
from receiver.stores.activity import ActivityLog
from receiver.stores.admission import UNLIMITED, Admission
from receiver.stores.charges import Charges
from receiver.stores.clocks import Clocks
from receiver.stores.group_commit import GroupCommit, Write
from receiver.stores.hook_tests import HookTests
from receiver.stores.inputs import Inputs
from receiver.stores.overview import Browsing, Overview
from receiver.stores.upkeep import (
    Change,
    Endpoints,
    Measures,
    Refusals,
    Repair,
    Retention,
    Whole,
)
from receiver.tasks import QUERY_ADOPTED_AFTER, Outcome, Status, Task, is_problem_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredCallback:
    """A callback on record. `repeats`: how often the same bytes came again."""

    id: int
    callback: Callback
    outcome: Outcome
    repeats: int
    problem: str | None = None

    def may_be_accepted(self, task: Task) -> bool:
        """Return whether it still names another provider task than the one on record."""
        on_record = [one for one in (task.provider_task_id, task.callback_task_id) if one]
        names_it = any(is_problem_of(self.problem, one) for one in on_record)
        return self.outcome is Outcome.MISMATCH and not names_it


@dataclass(frozen=True, slots=True)
class NoticeSource:
    """What a delivery is about: the task, its move, the message it rests on, the files so far."""

    notice: Notice
    callback: Callback | None
    is_forgotten: bool = False  # nothing may be told of the task any more


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """Everything on record about one task."""

    task: Task
    transitions: tuple[Transition, ...]
    callbacks: tuple[StoredCallback, ...]
    deliveries: tuple[Delivery, ...]
    attempts: dict[int, tuple[Attempt, ...]]  # by delivery id
    files: dict[int, tuple[File, ...]]  # by delivery id
    forgotten_at: int | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much waits; counted up to 10,000 of each hook, and 10,000 dead ones.

    `held`: those of the due deliveries whose hook is paused, has a circuit that is not closed, or
    is not in the hooks file.
    `oldest_due_at`: since when the oldest delivery could have been made that is not held. A hook
    that may be probed counts from the time at which the probe was due.
    """

    due: int
    dead: int
    oldest_due_at: int | None
    held: int = 0


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Bytes that the database uses, and bytes that are free on its disk.

    `free` is None if the database is on a server, whose disk is not visible from here.
    """

    used: int
    free: int | None


@dataclass(frozen=True, slots=True)
class Counter:
    """How often something happened at a provider since the record began."""

    name: str
    provider: str
    value: int


@dataclass(frozen=True, slots=True)
class ProcessProblem:
    """What is wrong with a process. `kind`: such as `worker`."""

    name: str
    kind: str
    problem: str
    seen_at: int


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows, newest first. `next`: the row before which the next page begins; None at the end."""

    rows: tuple[T, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From one instant to before another (integer milliseconds UTC); None: without that bound."""

    since: int | None = None
    until: int | None = None


ALWAYS = TimeRange()


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What a request was answered; `document` is JSON."""

    status: int
    document: str


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """What is on record of an idempotency key. `answer` None: the request is, or was, under way."""

    key: str
    digest: bytes  # of the request's body
    task_id: str  # of the one task that may be made for this key, whoever makes it
    held_until: int  # until then one holder is at work; the value tells holders apart
    answer: StoredResponse | None = None


REPAIRS = "repairs"  # moves that a poll brought because no callback had
CALLBACKS_MISSED = "callbacks_missed"  # ends among them
CONFLICTS = "conflicts"  # ends that contradicted the one on record
FILES_CHANGED = "database_files_changed"  # by another program, while the database was open
GONE_AFTER = 30_000  # ms without a heartbeat; a process at work sends one every 10 s
MISMATCHES = "mismatches"  # messages that named another provider task than the one on record


class Schema(Protocol):
    """The schema of the record, and its connections."""

    def migrate(self) -> list[str]:
        """Bring the schema up to this code's; the names of the migrations applied.

        Safe to run twice, and by several processes at once.
        """
        ...

    def check_schema(self) -> None:
        """Raises SchemaMismatch if the schema is older or newer than this code serves."""
        ...

    def engine(self) -> str:
        """The database's name and version, for people, and what is to be known of it."""
        ...

    def pooler(self) -> tuple[str, str] | None:
        """Return what a pooler in front of the database costs, and a remedy; None without one.

        Raises StoreUnavailable.
        """
        ...

    def space(self) -> DiskSpace:
        """The size of the database and the free space; takes no longer as rows are added.

        Raises StoreUnavailable.
        """
        ...

    def close(self) -> None:
        """Commit what waits, and let go. The store is used no more."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Within it nobody else is, of all threads and processes on this record; others wait.

        For a look at the record that decides what is put there next. Raises StoreUnavailable.
        """
        ...

    def wait_for_commit(self, timeout: float, stop: Signal) -> None:
        """Sleep until any process commits something, `timeout` seconds pass, or `stop` is set.

        A commit since this thread's last wait ended counts as well.
        """
        ...


class Inbox(Protocol):
    """The way in."""

    def create_task(self, task: Task) -> None:
        """Put a new task on record, with its `created` transition, before the provider is called.

        Raises ValueError if the id is taken.
        """
        ...

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
        ...

    @property
    def writer(self) -> GroupCommit[Any]:
        """Commits what `submit` hands over."""
        ...

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
        ...

    def quarantine(
        self, callback: Callback, problem: str, *, query_after: int = QUERY_ADOPTED_AFTER
    ) -> None:
        """Store a message that was not understood, and its problem. See `record`."""
        ...

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
        ...

    def give_up(self, task_id: str, now: int, subscriptions: Sequence[Subscription]) -> None:
        """Stop asking about an open task: it keeps its status, and those who hear `given_up` are
        told once. Does nothing for a task that ended. Raises NotFound.
        """
        ...


class Outbox(Protocol):
    """The way out."""

    def claim(
        self,
        worker: str,
        now: int,
        lease_until: int,
        limit: int,
        admission: Admission = UNLIMITED,
    ) -> list[Delivery]:
        """Claim up to `limit` due deliveries that have a slot; each claim begins an attempt.

        No other worker can claim them before `lease_until`. The hook with the fewest running
        deliveries comes first, then the oldest delivery. Hooks that are paused or whose circuit is
        open are skipped; a half-open hook gets one delivery at a time.
        """
        ...

    def expired(self, now: int) -> list[Delivery]:
        """Claimed deliveries whose lease ran out: their worker died or stalled."""
        ...

    def renew(self, deliveries: Sequence[Delivery], lease_until: int) -> None:
        """Hold on to these deliveries; one that was lost meanwhile stays lost."""
        ...

    def settle(
        self,
        delivery: Delivery,
        attempt: Attempt,
        state: State,
        due_at: int | None,
        files: Sequence[File] = (),
        change: Change | None = None,
    ) -> bool:
        """End the attempt that `delivery` was claimed for.

        `state` is DELIVERED, DEAD, or PENDING with `due_at`. `files` are the files that the attempt
        made, even if it failed. When a delivery ends, those that wait for it become due. `change`
        is applied to the hook's endpoint, and its alert is stored. Returns False and writes nothing
        if the claim was lost.
        """
        ...

    def told(self, delivery: Delivery) -> NoticeSource:
        """What the delivery is about. Raises NotFound."""
        ...

    def redeliver(self, delivery_id: int, now: int) -> None:
        """Make a delivery that ended due again, with a fresh set of retries.

        Raises NotFound, also if its task was forgotten.
        """
        ...

    def next_due_at(self, now: int, admission: Admission = UNLIMITED) -> int | None:
        """When the next delivery of a hook with a slot can be claimed; None: not by itself."""
        ...


class Agenda(Protocol):
    """What has to be asked about, and who is at work."""

    def overdue(self, now: int, ask_again_at: int, limit: int) -> list[Task]:
        """Take up to `limit` tasks whose deadline has passed; each counts as asked.

        No other poller gets them before `ask_again_at`. Tasks of an account (`provider:account`)
        that is paused are left.
        """
        ...

    def ask_at(self, task_id: str, at: int | None) -> None:
        """Ask the provider about this task at that instant; None: not any more.

        A forgotten task is not asked about.
        """
        ...

    def put_off(self, task: Task, at: int | None) -> None:
        """Ask about a task that `overdue` gave again at that instant, or not any more.

        Does nothing if its deadline was moved meanwhile: it ended, or there is a reason to ask.
        """
        ...

    def next_deadline_at(self) -> int | None:
        """When the next task becomes overdue; None if none will."""
        ...

    def usual_duration(self, provider: str) -> int | None:
        """How long its latest tasks took from creation to success: the median, in ms."""
        ...

    def pause(self, name: str, until: int) -> None:
        """Leave alone what has this name until that instant."""
        ...

    def counters(self) -> list[Counter]:
        """What was counted since the record began."""
        ...

    def heartbeat(self, name: str, kind: str, now: int) -> None:
        """This process is alive. Also proves that the store can be written."""
        ...

    def seen(self, kind: str) -> int | None:
        """When a process of this kind was last seen."""
        ...


class Problems(Protocol):
    """What processes report of themselves while they are at work."""

    def report_problem(self, name: str, kind: str, problem: str | None, now: int) -> None:
        """Store the problem of this process, or that it has none. Also a heartbeat."""
        ...

    def process_problems(self, since: int) -> list[ProcessProblem]:
        """Return the problems of processes that were seen after that instant."""
        ...


class Catalogue(Protocol):
    """Looking at the record."""

    def task(self, task_id: str) -> Task:
        """Raises NotFound."""
        ...

    def history(self, task_id: str) -> TaskHistory:
        """Raises NotFound."""
        ...

    def task_by_provider_id(self, provider: str, provider_task_id: str) -> Task:
        """The newest task with this id in responses or callbacks. Raises NotFound."""
        ...

    def tasks(
        self,
        *,
        status: Status | None = None,
        provider: str | None = None,
        reference: str | None = None,
        limit: int = 50,
    ) -> list[Task]:
        """Tasks, newest first."""
        ...

    def callbacks(
        self, *, task_id: str | None = None, outcome: Outcome | None = None, limit: int = 50
    ) -> list[StoredCallback]:
        """Messages of providers, newest first."""
        ...

    def callback(self, callback_id: int) -> StoredCallback:
        """Raises NotFound."""
        ...

    def deliveries(
        self,
        *,
        task_id: str | None = None,
        hook: str | None = None,
        state: State | None = None,
        limit: int = 50,
    ) -> list[Delivery]:
        """Deliveries, newest first."""
        ...

    def page_of_tasks(
        self,
        *,
        before: int | None,
        limit: int,
        status: Status | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        created: TimeRange = ALWAYS,
    ) -> Page[Task]:
        """Tasks by row key, newest first; inserts meanwhile move no page."""
        ...

    def page_of_callbacks(
        self,
        *,
        before: int | None,
        limit: int,
        task_id: str | None = None,
        outcome: Outcome | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        received: TimeRange = ALWAYS,
    ) -> Page[StoredCallback]:
        """Messages of providers by row key, newest first; inserts meanwhile move no page."""
        ...

    def page_of_deliveries(
        self,
        *,
        before: int | None,
        limit: int,
        task_id: str | None = None,
        hook: str | None = None,
        state: State | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        moved: TimeRange = ALWAYS,
    ) -> Page[Delivery]:
        """Deliveries by row key, newest first; inserts meanwhile move no page."""
        ...

    def delivery(self, delivery_id: int) -> Delivery:
        """Raises NotFound."""
        ...

    def backlog(self, now: int, hooks: Collection[str] | None = None) -> Backlog:
        """How much waits to be delivered. `hooks`: the names in the hooks file, if known."""
        ...


class Keys(Protocol):
    """Idempotency keys: a request that is sent again makes no second task."""

    def key(self, key: str, now: int) -> IdempotencyRecord | None:
        """What is on record of this key; None if nothing is, or it is older than a day."""
        ...

    def claim_key(
        self, key: str, digest: bytes, task_id: str, now: int, held_until: int
    ) -> IdempotencyRecord | None:
        """Hold this key until then; None if somebody else holds it, or it was answered.

        A hold that ran out unanswered is taken over with the body and the task id it had: that id
        can go on record once, so that two holders never make two tasks. Old keys are deleted.
        """
        ...

    def settle_key(self, held: IdempotencyRecord, now: int, answer: StoredResponse | None) -> None:
        """Keep what was answered; with None, only let go. Nothing happens if the hold was lost."""
        ...

    def release_key(self, held: IdempotencyRecord) -> None:
        """Forget the key: nothing came of it. Nothing happens if the hold was lost."""
        ...


class Store(
    Schema,
    Inbox,
    Outbox,
    Agenda,
    Problems,
    Catalogue,
    Keys,
    Endpoints,
    HookTests,
    Repair,
    Refusals,
    Access,
    Measures,
    Retention,
    Whole,
    ActivityLog,
    Charges,
    Clocks,
    Overview,
    Browsing,
    Inputs,
    Protocol,
):
    """The system of record.

    Every verb may raise StoreUnavailable; a write that raised it may or may not be on record, and
    is safe to repeat. Deduplication is a unique key, claiming one statement.
    """
