"""Asks providers about quiet tasks; what they say enters the record by the door of callbacks."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from threading import Event as Signal

import structlog
from structlog.contextvars import bound_contextvars

from receiver import providers
from receiver.clock import now_ms
from receiver.errors import RequestRefused, StoreUnavailable
from receiver.events import Source
from receiver.ingest import Ingest
from receiver.observability.metrics import FLUSH_INTERVAL, QUESTIONS
from receiver.outgoing.retry import LONGEST_WAIT
from receiver.processes.clock_watch import LOOK_EVERY, ClockWatch
from receiver.processes.current_hooks import REJECTED, RELOADED, CurrentHooks, ProblemReports
from receiver.tasks import IdSource, Outcome, Task
from submitter.client import Answer
from submitter.errors import (
    NotFoundAtProvider,
    SubmitterError,
    TryLater,
    UnexpectedAnswer,
    WrongInput,
)
from submitter.messages import message
from submitter.providers import Provider, open_provider
from submitter.schedule import Schedule

AT_ONCE = 4  # questions asked side by side
HELD = 120_000  # ms a task is ours once taken: longer than a question can take
LONGEST_NAP = 1.0  # seconds
SEEN_EVERY = 10.0  # seconds between heartbeats
KEYS_MISSING_WAIT = 300.0  # seconds

log = structlog.get_logger()
OpenRoom = Callable[[str, str], Provider]


def ask(ingest: Ingest, room: Provider, task: Task) -> Outcome:
    """Ask once, by the provider's id or else by ours; durable when it returns.

    Raises ProviderError (NotFoundAtProvider if it knows no such task), and StoreUnavailable.
    """
    answer = _fetched(room, task)
    if answer.quota is not None and answer.quota.remaining <= 0:
        longest = now_ms() + round(1000 * LONGEST_WAIT)
        ingest.store.polling.pause(account_of(task), min(answer.quota.reset_at, longest))
    try:
        return ingest.accept(message(task, answer, Source.QUERY))
    except RequestRefused as error:
        raise UnexpectedAnswer(
            f"the provider's answer was not understood and is kept in quarantine: {error}",
            http_status=answer.status,
            body=answer.body,
        ).about(task.id) from error


def _fetched(room: Provider, task: Task) -> Answer:
    """Return the provider's response to a query of the task.

    An id that was only learnt from a callback may belong to another task, so it is tried after our
    own id, which tasks that others created do not have.
    """
    known = task.id_at_provider
    if known and (task.id_source is not IdSource.CALLBACK or not room.finds_by_our_id):
        return room.fetch(provider_task_id=known)
    try:
        return room.fetch(external_task_id=task.id)
    except (NotFoundAtProvider, WrongInput, UnexpectedAnswer):
        if not known:
            raise
        return room.fetch(provider_task_id=known)


@dataclass
class Reconciler:
    """Asks about overdue tasks, several at once, each by one poller only."""

    ingest: Ingest
    open_provider: OpenRoom = open_provider
    clock: Callable[[], int] = now_ms
    first_within: float | None = None  # seconds; the operator's bound on the first question
    current_hooks: CurrentHooks | None = None  # of the poller process
    watch: ClockWatch | None = None
    _rooms: dict[tuple[str, str], Provider] = field(default_factory=dict)

    def run(self, stop: Signal) -> None:
        """Ask for ever, until `stop` is set; questions under way are ended first."""
        look_at = seen_at = flush_at = 0.0
        name = f"{socket.gethostname()}:{os.getpid()}"
        reports = ProblemReports(self.ingest.store, name, "poller")
        while not stop.is_set():
            try:
                if self.watch is not None and time.monotonic() >= look_at:
                    self.watch.look()
                    look_at = time.monotonic() + LOOK_EVERY
                if time.monotonic() >= seen_at:
                    self.ingest.store.activity.heartbeat(name, "poller", self.clock())
                    seen_at = time.monotonic() + SEEN_EVERY
                if self.current_hooks is not None:
                    reports.report(self.current_hooks.problem)
                if time.monotonic() >= flush_at:
                    self.ingest.meter.flush(self.ingest.store.metrics.add)
                    flush_at = time.monotonic() + FLUSH_INTERVAL
                if not self.round():
                    self.ingest.store.database.wait_for_commit(self._nap(), stop)
            except StoreUnavailable as error:
                log.error("the record is unavailable", error=str(error), again_after_s=1)
                self.ingest.meter.store_failed()
                stop.wait(1)
        self.hand_over()
        with suppress(StoreUnavailable):  # it was logged where it mattered
            reports.report(None)

    def reload(self) -> None:
        """Read the hooks file again; if it is invalid, log that, and keep the subscriptions."""
        if self.current_hooks is None:
            return
        found = self.current_hooks = self.current_hooks.reloaded()
        if found.problem is not None:
            log.error(REJECTED, problem=found.problem)
            return
        subscriptions = [entry.subscription for entry in found.entries]
        self.ingest = replace(self.ingest, subscriptions=subscriptions)
        log.info(RELOADED, hooks=self.ingest.hooks)

    def hand_over(self) -> None:
        """Put what was counted on record, as far as it can be written now."""
        try:
            self.ingest.meter.flush(self.ingest.store.metrics.add)
        except StoreUnavailable as error:
            log.warning("what was counted is lost", error=str(error))

    def round(self) -> Counter[str]:
        """Ask about what is overdue now; how many questions ended how."""
        now = self.clock()
        tasks = self.ingest.store.polling.claim_overdue(now, now + HELD, AT_ONCE)
        if not tasks:
            return Counter()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="question") as pool:
            return Counter(pool.map(self._reconcile, tasks))

    def _nap(self) -> float:
        deadline_at = self.ingest.store.polling.next_deadline_at()
        if deadline_at is None:
            return LONGEST_NAP
        return min(LONGEST_NAP, max(0.05, (deadline_at - self.clock()) / 1000))

    def _reconcile(self, task: Task) -> str:
        """Ask about one task, and decide when to ask again; how it ended, in a word."""
        # In its own context: values that an adapter binds appear in no log line of other tasks.
        result = copy_context().run(self._asked_by_name, task)
        self.ingest.meter.count(QUESTIONS, task.provider, result.replace(" ", "_"))
        return result

    def _asked_by_name(self, task: Task) -> str:
        with bound_contextvars(task=task.id, provider=task.provider):
            return self._asked(task)

    def _asked(self, task: Task) -> str:
        try:
            room = self._room(task)
            result = self._question(room, task)
        except TryLater as error:
            return self._later(task, error)
        except SubmitterError as error:
            log.warning("asking failed", error=str(error))
            if not (isinstance(error, UnexpectedAnswer) and self._stop_if_ended(task)):
                self._put_off(task, self._rooms.get((task.provider, task.account)))
            return "failed"
        if not self._stop_if_ended(task):
            self._put_off(task, room)
        return result

    def _stop_if_ended(self, task: Task) -> bool:
        """After a response, stop querying a task that has ended; return whether it has.

        Such a query is for a lost output or a fresh URL, and any response is enough. A conflict is
        queried until it is resolved.
        """
        if task.status.is_terminal and not task.conflict:
            self.ingest.store.polling.postpone(task, None)
            return True
        return False

    def _question(self, room: Provider, task: Task) -> str:
        if not task.id_at_provider and not room.finds_by_our_id:
            # Nothing can bring the outcome: the create's answer was lost, and it was the only key.
            self.ingest.give_up(task.id, self.clock())
            return "given up"
        try:
            outcome = ask(self.ingest, room, task)
        except NotFoundAtProvider:
            return "not found"
        log.info("asked", outcome=str(outcome))
        return "moved" if outcome is Outcome.RECORDED else "unchanged"

    def _later(self, task: Task, error: TryLater) -> str:
        """The account has to wait: all its questions do, and this one is asked again then."""
        wait = min(error.retry_after or 1.0, LONGEST_WAIT)
        until = self.clock() + round(1000 * wait)
        self.ingest.store.polling.pause(account_of(task), until)
        self.ingest.store.polling.postpone(task, until)
        return "later"

    def _put_off(self, task: Task, room: Provider | None) -> None:
        """Set the next deadline of a task that is still open, or give it up."""
        now = self.clock()
        if room is None:
            wait: float | None = KEYS_MISSING_WAIT
        else:
            expects = task.expects_callback
            schedule = schedule_for(
                self.ingest, room, expects_callback=expects, at_most=self.first_within
            )
            # A clock that was set forward makes no task older.
            since = task.created_at
            age = now - since - self.ingest.store.clocks.set_forward_since(since)
            wait = schedule.again(age / 1000)
        if wait is not None:
            self.ingest.store.polling.postpone(task, now + round(1000 * wait))
        elif task.status.is_terminal:
            self.ingest.store.polling.postpone(task, None)
        else:
            self.ingest.give_up(task.id, now)

    def _room(self, task: Task) -> Provider:
        key = (task.provider, task.account)
        if key not in self._rooms:
            self._rooms[key] = self.open_provider(*key)
        return self._rooms[key]


def account_of(task: Task) -> str:
    """What the requests of this task's account are paused by."""
    return f"{task.provider}:{task.account}"


def schedule_for(
    ingest: Ingest, room: Provider, *, expects_callback: bool, at_most: float | None
) -> Schedule:
    """The deadlines of this provider's tasks, by what the record has learnt."""
    took = ingest.store.polling.usual_duration(room.name)
    usual = room.usual_seconds if took is None else took / 1000
    kept_for = providers.get(room.name).results_kept_for / 1000
    return Schedule(usual, expects_callback, took is not None, at_most, kept_for)
