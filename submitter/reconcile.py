"""Queries providers about overdue tasks, and records the responses as it records callbacks."""

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

from structlog.contextvars import bind_contextvars

from receiver.clock import now_ms
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.observability.logger import Logger
from receiver.observability.metrics import FLUSH_INTERVAL, QUESTIONS
from receiver.outgoing.retry import LONGEST_WAIT
from receiver.processes.clock_watch import LOOK_EVERY, ClockWatch
from receiver.processes.current_hooks import REJECTED, RELOADED, CurrentHooks, ProblemReports
from receiver.tasks import Outcome, Task
from submitter.errors import NotFoundAtProvider, SubmitterError, TryLater, UnexpectedAnswer
from submitter.providers import Provider, open_provider
from submitter.queries import pause_key, query, schedule_for

CONCURRENCY = 4  # queries
LEASE_MS = 120_000  # the duration of a claim: longer than any query takes
LONGEST_SLEEP = 1.0  # seconds
HEARTBEAT_EVERY = 10.0  # seconds
MISSING_KEYS_WAIT = 300.0  # seconds

log = Logger()
OpenAdapter = Callable[[str, str], Provider]


@dataclass
class Reconciler:
    """Queries overdue tasks concurrently. Two pollers never query the same task concurrently."""

    ingest: Ingest
    open_adapter: OpenAdapter = open_provider
    clock: Callable[[], int] = now_ms
    first_within: float | None = None  # seconds; the operator's limit for the first query
    current_hooks: CurrentHooks | None = None  # of the poller process
    watch: ClockWatch | None = None
    _adapters: dict[tuple[str, str], Provider] = field(default_factory=dict)

    def run(self, stop: Signal) -> None:
        """Query overdue tasks until `stop` is set, and then finish the queries in progress."""
        look_at = heartbeat_at = flush_at = 0.0
        name = f"{socket.gethostname()}:{os.getpid()}"
        reports = ProblemReports(self.ingest.store, name, "poller")
        while not stop.is_set():
            try:
                if self.watch is not None and time.monotonic() >= look_at:
                    self.watch.look()
                    look_at = time.monotonic() + LOOK_EVERY
                if time.monotonic() >= heartbeat_at:
                    self.ingest.store.activity.heartbeat(name, "poller", self.clock())
                    heartbeat_at = time.monotonic() + HEARTBEAT_EVERY
                if self.current_hooks is not None:
                    reports.report(self.current_hooks.problem)
                if time.monotonic() >= flush_at:
                    self.ingest.meter.flush(self.ingest.store.metrics.add)
                    flush_at = time.monotonic() + FLUSH_INTERVAL
                if not self.query_overdue():
                    self.ingest.store.database.wait_for_commit(self._sleep_seconds(), stop)
            except StoreUnavailable as error:
                log.error("the database is unavailable", error=str(error), retry_after_s=1)
                self.ingest.meter.store_failed()
                stop.wait(1)
        self.flush_metrics()
        with suppress(StoreUnavailable):  # logged above
            reports.report(None)

    def reload(self) -> None:
        """Read the hooks file again; if it is invalid, log that, and keep the subscriptions."""
        if self.current_hooks is None:
            return
        hooks = self.current_hooks = self.current_hooks.reloaded()
        if hooks.problem is not None:
            log.error(REJECTED, process="poller", problem=hooks.problem)
            return
        subscriptions = [entry.subscription for entry in hooks.entries]
        self.ingest = replace(self.ingest, subscriptions=subscriptions)
        log.info(RELOADED, process="poller", hooks=self.ingest.hooks)

    def flush_metrics(self) -> None:
        """Store the metrics; log a warning if that fails."""
        try:
            self.ingest.meter.flush(self.ingest.store.metrics.add)
        except StoreUnavailable as error:
            log.warning("the latest metrics were lost", error=str(error))

    def query_overdue(self) -> Counter[str]:
        """Query a few tasks that are overdue now; return the number of queries by result."""
        now = self.clock()
        tasks = self.ingest.store.polling.claim_overdue(now, now + LEASE_MS, CONCURRENCY)
        if not tasks:
            return Counter()
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="query") as pool:
            return Counter(pool.map(self._reconcile, tasks))

    def _sleep_seconds(self) -> float:
        deadline_at = self.ingest.store.polling.next_deadline_at()
        if deadline_at is None:
            return LONGEST_SLEEP
        return min(LONGEST_SLEEP, max(0.05, (deadline_at - self.clock()) / 1000))

    def _reconcile(self, task: Task) -> str:
        """Query one task and schedule its next query; return the result as a word."""
        # In a context of its own, so that bound values do not appear in other log lines.
        result = copy_context().run(self._query_and_schedule, task)
        self.ingest.meter.count(QUESTIONS, task.provider, result.replace(" ", "_"))
        return result

    def _query_and_schedule(self, task: Task) -> str:
        bind_contextvars(task=task.id, provider=task.provider)
        try:
            adapter = self._adapter(task)
            result = self._query(adapter, task)
        except TryLater as error:
            return self._pause_account(task, error)
        except SubmitterError as error:
            log.warning("the query failed", error=str(error))
            if not (isinstance(error, UnexpectedAnswer) and self._stop_if_ended(task)):
                self._schedule_next(task, self._adapters.get((task.provider, task.account)))
            return "failed"
        if not self._stop_if_ended(task):
            self._schedule_next(task, adapter)
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

    def _query(self, adapter: Provider, task: Task) -> str:
        if not task.id_at_provider and not adapter.finds_by_our_id:
            # The response to the create was lost, and only it contained the provider's id.
            self.ingest.give_up(task.id, self.clock())
            return "given up"
        try:
            outcome = query(self.ingest, adapter, task)
        except NotFoundAtProvider:
            return "not found"
        log.info("queried", outcome=str(outcome))
        return "moved" if outcome is Outcome.RECORDED else "unchanged"

    def _pause_account(self, task: Task, error: TryLater) -> str:
        """Pause all queries of the account, and schedule this task for the end of the pause."""
        wait = min(error.retry_after or 1.0, LONGEST_WAIT)
        until = self.clock() + round(1000 * wait)
        self.ingest.store.polling.pause(pause_key(task), until)
        self.ingest.store.polling.postpone(task, until)
        return "later"

    def _schedule_next(self, task: Task, adapter: Provider | None) -> None:
        """Set the time of the next query, or give up a task that is too old."""
        now = self.clock()
        if adapter is None:
            wait: float | None = MISSING_KEYS_WAIT
        else:
            schedule = schedule_for(
                self.ingest,
                adapter,
                expects_callback=task.expects_callback,
                first_within=self.first_within,
            )
            # A clock that was set forward does not make the task older.
            skipped = self.ingest.store.clocks.set_forward_since(task.created_at)
            wait = schedule.next_wait((now - task.created_at - skipped) / 1000)
        if wait is not None:
            self.ingest.store.polling.postpone(task, now + round(1000 * wait))
        elif task.status.is_terminal:
            self.ingest.store.polling.postpone(task, None)
        else:
            self.ingest.give_up(task.id, now)

    def _adapter(self, task: Task) -> Provider:
        account = (task.provider, task.account)
        if account not in self._adapters:
            self._adapters[account] = self.open_adapter(*account)
        return self._adapters[account]
