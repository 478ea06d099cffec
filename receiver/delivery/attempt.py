"""Claims deliveries, calls their hooks, and records the outcomes.

A dispatcher decides when slots begin to work. `DeliveryWorker` does the rest: `claim` takes due
deliveries for a limited time (a lease), with everything that their attempts need, and `run` makes
one attempt, records its outcome, and claims the next delivery for the same slot.

Outcomes are recorded together: while one thread waits for its commit, the attempts that end
meanwhile collect, and one of their threads then settles all of them in one transaction, which also
claims the next deliveries for their slots.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import copy_context
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from functools import partial
from threading import Event as Signal

import structlog
from structlog.contextvars import bound_contextvars

from receiver import providers
from receiver.clock import now_ms
from receiver.deliveries import Attempt, Delivery, Notice, State
from receiver.delivery import failures
from receiver.delivery.worker_slots import Reservation, WorkerSlots
from receiver.endpoints import Breaker, EndpointHealth, Limits
from receiver.errors import (
    ContentFailure,
    DeliveryFailure,
    PermanentFailure,
    RequestRefused,
    ResultGone,
    StoreUnavailable,
    TemporaryFailure,
)
from receiver.events import Event, Media, Source
from receiver.filters.where import EventFilter
from receiver.hooks import returned_json
from receiver.hooks.base import Done, Hook
from receiver.observability import metrics
from receiver.observability.metrics import MetricBuffer
from receiver.outgoing.retry import RetryPolicy
from receiver.stores.base import Store
from receiver.stores.sql.claims import ClaimedDelivery, NoticeSource
from receiver.stores.sql.outbox import Settlement
from receiver.text.display import redacted, storable

LEASE = 10_000  # ms; the deliveries of a worker that died wait for this time
UPKEEP_EVERY = 2.5  # seconds between two renewals of the leases
SEEN_EVERY = 10.0  # seconds between two heartbeats
DRAIN = 25.0  # seconds for running attempts to end; hosts kill a process 30 s after SIGTERM
ANSWER_KEPT = 2_000  # characters of an endpoint's response
RECORD_TRIES = 10  # attempts to store an outcome while the store is unavailable
RECORD_AGAIN_AFTER = 1.0  # seconds
RESULTS = {  # log level, log line, label of the metric
    State.DELIVERED: (logging.INFO, "delivered", "delivered"),
    State.PENDING: (logging.WARNING, "attempt failed, due again", "retry"),
    State.DEAD: (logging.ERROR, "delivery is dead", "dead"),
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ReadyDelivery:
    """A claimed delivery with its notice, or with the error that prevents its notice."""

    delivery: ClaimedDelivery
    notice: Notice | Exception


@dataclass(slots=True)
class EndedAttempt:
    """An attempt that has ended, and its result once `is_settled` is set."""

    settlement: Settlement
    notice: Notice | None  # None: the hook was not called
    claims_next: bool = False
    is_settled: bool = False
    is_recorded: bool = False  # False: the claim was lost
    error: Exception | None = None
    next: ReadyDelivery | None = None  # for the same slot


@dataclass(slots=True)
class DeliveryWorker:
    """Claims, attempts and settles deliveries for one worker process. Thread-safe."""

    store: Store
    hooks: Mapping[str, Hook]
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: Breaker = field(default_factory=Breaker)
    clock: Callable[[], int] = now_ms
    chance: Callable[[], float] = random.random
    hide: Callable[[str], str] = redacted  # removes secrets from the text of responses and errors
    meter: MetricBuffer = field(default_factory=MetricBuffer)
    zone: tzinfo = UTC  # the time zone of times that people read
    concurrency: int = 4
    policies: Callable[[], Mapping[str, RetryPolicy]] = dict  # of hooks that have their own
    limits: Callable[[], Mapping[str, Limits]] = dict  # of hooks with limits
    filters: Callable[[], Mapping[str, EventFilter]] = dict  # with conditions for outputs
    slots: WorkerSlots = field(init=False)
    name: str = field(init=False)
    _claimed: dict[tuple[int, int], Delivery] = field(default_factory=dict, init=False)
    _ended: list[EndedAttempt] = field(default_factory=list, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _settling: threading.Lock = field(default_factory=threading.Lock, init=False)
    _seen_at: float = field(default=0.0, init=False)
    _refilling: int = field(default=0, init=False)  # slots whose threads look for a delivery
    _has_open_slot: threading.Event = field(default_factory=threading.Event, init=False)
    _looked_at: int | None = field(
        default=None, init=False
    )  # time of the last claim, until a sleep

    def __post_init__(self) -> None:
        self.slots = WorkerSlots(
            self.concurrency, is_known=self.hooks.__contains__, limits=self.limits
        )
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    @property
    def is_busy(self) -> bool:
        """Whether the outcome of a claimed delivery is not recorded yet."""
        return bool(self._claimed)

    @property
    def open_slots(self) -> int:
        """The number of free slots, without those whose threads are looking for a delivery."""
        return max(0, self.slots.free - self._refilling)

    def wait_for_slot(self, timeout: float) -> bool:
        """Return whether there is an open slot, after waiting for one if there is none."""
        self._has_open_slot.clear()
        return self.open_slots > 0 or self._has_open_slot.wait(timeout)

    def claim(self) -> list[ReadyDelivery]:
        """Claim due deliveries for the open slots. Raises StoreUnavailable.

        Each claim begins an attempt. `upkeep` renews the lease until `run` has ended it.
        """
        now = self._looked_at = self.clock()
        with Reservation(self.slots) as reservation:
            claimed = self.store.outbox.claim(
                self.name, now, now + LEASE, self.open_slots, reservation
            )
            return self.keep(claimed, reservation)

    def seconds_until_due(self, most: float) -> float:
        """Return after how many seconds the next delivery may begin; `most` if it takes longer.

        A delivery that was due at the last claim is held by another worker or a missing hook. One
        that has become due since then may begin immediately. Raises StoreUnavailable.
        """
        now = self.clock()
        looked_at, self._looked_at = self._looked_at or now, None
        due_at = self.store.outbox.next_due_at(looked_at, self.slots)
        if due_at is None or due_at <= looked_at:
            return most
        return min(most, max(0, due_at - now) / 1000)

    def keep(
        self, claimed: Sequence[ClaimedDelivery], reservation: Reservation
    ) -> list[ReadyDelivery]:
        """Keep the slots and renew the leases of these deliveries until `run` has ended them.

        Returns them with their notices, whose outputs are parsed from the stored messages, because
        bodies are stored once. A message is parsed once for all deliveries of its transition.
        """
        reservation.keep({delivery.id for delivery in claimed})
        with self._lock:
            self._claimed.update({_claim_of(delivery): delivery for delivery in claimed})
        ready = []
        events: dict[int | None, Event] = {}
        for delivery in claimed:
            try:
                notice: Notice | Exception = self.notice(delivery, events)
            except Exception as error:  # noqa: BLE001 - it fails the attempt of this delivery only
                notice = error
            ready.append(ReadyDelivery(delivery, notice))
        return ready

    def notice(self, delivery: ClaimedDelivery, events: dict[int | None, Event]) -> Notice:
        """Return the hook's notice. Raises PermanentFailure.

        `events` are the messages that were parsed already, by row key; it is added to.
        """
        source = delivery.source
        if source.is_forgotten:
            raise PermanentFailure("the task was forgotten, so nothing is sent about it")
        return replace(source.notice, media=self._media(source, events), zone=self.zone)

    def _media(self, source: NoticeSource, events: dict[int | None, Event]) -> tuple[Media, ...]:
        """Return the outputs in the message; none without a message that reports outputs."""
        if source.message_id in events:
            return events[source.message_id].media
        callback = source.callback
        if callback is None or callback.source is Source.CREATE:
            return ()
        if not callback.body:
            raise PermanentFailure("the provider's message was pruned, so there is nothing to send")
        try:
            event = events[source.message_id] = providers.parse(callback)
        except RequestRefused as error:
            raise PermanentFailure(f"the stored message can no longer be read: {error}") from error
        return event.media

    def run_slot(self, ready: ReadyDelivery, stop: Signal) -> None:
        """Attempt a claimed delivery, and then those that are claimed for the same slot.

        Ends when no delivery is due for the slot, or `stop` is set.
        """
        upcoming: ReadyDelivery | None = ready
        while upcoming is not None:
            upcoming = self.run(upcoming, stop)
        self._has_open_slot.set()

    def run(self, ready: ReadyDelivery, stop: Signal) -> ReadyDelivery | None:
        """Attempt a claimed delivery, record the outcome, and free its slot.

        Returns the next delivery for the slot, claimed in the same transaction; None if none is
        due, or if `stop` is set.
        """
        delivery, state, ended = ready.delivery, State.PENDING, None
        with _log_context(delivery):
            try:
                try:
                    ended = self.attempt(ready)
                    state = ended.settlement.state
                finally:
                    with self._lock:
                        self._refilling += 1
                    self.slots.end(delivery.id, delivered=state is State.DELIVERED)
                ended.claims_next = not stop.is_set()
                self.settle(ended)
            except StoreUnavailable as error:  # the lease expires, and it is attempted again
                log.error("an outcome is not on record", error=str(error))
                self.meter.store_failed()
            except Exception:
                log.exception("an attempt broke")
            finally:
                with self._lock:
                    self._refilling -= 1
                    self._claimed.pop(_claim_of(delivery), None)
        return None if ended is None else ended.next

    def attempt(self, ready: ReadyDelivery) -> EndedAttempt:
        """Call the hook of a claimed delivery, and return the outcome, which `settle` records.

        Any exception of the hook is a failed attempt. Raises StoreUnavailable.
        """
        delivery, notice, started_at = ready.delivery, ready.notice, self.clock()
        hook = self.hooks.get(delivery.hook)
        if hook is None:  # it was removed from the hooks file after the claim
            name = repr(delivery.hook)
            done = Done(f"the hook {name} is not in the hooks file: the delivery waits for it")
            return self._outcome(delivery, started_at, "failed", State.PENDING, done, retry_in=0)
        if delivery.endpoint.disabled_at is not None:
            return self._failed(delivery, started_at, failures.hook_disabled(delivery.endpoint))
        if isinstance(notice, Exception):
            return self._failed(delivery, started_at, notice)
        where = self.filters().get(delivery.hook)
        if where is not None and (unmet := where.unmet(notice)):
            done = Done(f"skipped, because the event does not meet where.{unmet}")
            return self._outcome(delivery, started_at, "delivered", State.DELIVERED, done)
        try:
            # In a context of its own: values that the hook binds appear in no later log line.
            done = copy_context().run(hook.send, notice)
            if done.output:
                done = returned_json.checked(done)
        except Exception as error:  # noqa: BLE001 - hooks may raise anything
            return self._failed(delivery, started_at, error, notice)
        return self._outcome(delivery, started_at, "delivered", State.DELIVERED, done, notice)

    def settle(self, ended: EndedAttempt) -> None:
        """Record the outcome of an attempt, and claim the next delivery for its slot.

        Attempts that end while another thread records outcomes are recorded together. Raises
        StoreUnavailable after RECORD_TRIES tries.
        """
        with self._lock:
            self._ended.append(ended)
        with self._settling:
            if not ended.is_settled:
                with self._lock:
                    batch, self._ended = self._ended, []
                try:
                    self._settle_together(batch)
                finally:
                    for one in batch:
                        one.is_settled = True
        if ended.error is not None:
            raise ended.error
        if ended.is_recorded:
            self._count(ended.settlement, ended.notice)
        level, event, _ = RESULTS[ended.settlement.state]
        log.log(level, event)

    def abandon(self, delivery: Delivery) -> State:
        """Record that the worker of this attempt died or stalled, and return the new state."""
        failure = TemporaryFailure("the worker died or stalled during this attempt")
        with _log_context(delivery):
            ended = self._failed(delivery, self.clock(), failure, outcome=failures.ABANDONED)
            self.settle(ended)
        return ended.settlement.state

    def upkeep(self) -> None:
        """Renew the leases of claimed deliveries; regularly record a heartbeat.

        Call it every UPKEEP_EVERY seconds. Raises StoreUnavailable.
        """
        now = self.clock()
        with self._lock:
            claimed = list(self._claimed.values())
        if claimed:
            self.store.outbox.renew(claimed, now + LEASE)
        if time.monotonic() >= self._seen_at:
            self.store.activity.heartbeat(self.name, "worker", now)
            self._seen_at = time.monotonic() + SEEN_EVERY

    def store_failed(self, error: StoreUnavailable) -> None:
        """Log and count that the store is unavailable."""
        log.error("the record is unavailable", error=str(error))
        self.meter.store_failed()

    def _settle_together(self, batch: Sequence[EndedAttempt]) -> None:
        """Record these outcomes and claim the next deliveries, all in one transaction.

        If that fails, each outcome is recorded by itself, so that one error loses no other outcome.
        """
        now, settlements = self.clock(), [ended.settlement for ended in batch]
        limit = sum(ended.claims_next for ended in batch)
        try:
            with Reservation(self.slots) as reservation:
                are_recorded, claimed = self.store.outbox.exchange(
                    settlements, self.name, now, now + LEASE, limit, reservation
                )
                ready = iter(self.keep(claimed, reservation))
        except Exception as error:  # noqa: BLE001 - raised again if it concerns an outcome
            self._settle_each(batch)
            if not isinstance(error, StoreUnavailable):
                log.error("outcomes were recorded one by one", error=repr(error))
        else:
            for ended, is_recorded in zip(batch, are_recorded, strict=True):
                ended.is_recorded = is_recorded
                ended.next = next(ready, None) if ended.claims_next else None

    def _settle_each(self, batch: Sequence[EndedAttempt]) -> None:
        """Record these outcomes in a transaction each, with RECORD_TRIES tries in total."""
        waiting, tries_left = deque(batch), RECORD_TRIES
        while waiting:
            ended = waiting.popleft()
            try:
                one = ended.settlement
                ended.is_recorded = self.store.outbox.settle(
                    one.delivery,
                    one.attempt,
                    one.state,
                    one.due_at,
                    one.files,
                    one.change,
                    one.output,
                )
            except StoreUnavailable as error:
                ended.error = copy(error)
                tries_left -= 1
                if tries_left > 0:
                    waiting.append(ended)  # the others are not delayed if this one is the cause
                    time.sleep(RECORD_AGAIN_AFTER)
            except Exception as error:  # noqa: BLE001 - raised in the thread of its attempt
                ended.error = error
            else:
                ended.error = None

    def _failed(
        self,
        delivery: Delivery,
        started_at: int,
        error: Exception,
        notice: Notice | None = None,
        *,
        outcome: str = "failed",
    ) -> EndedAttempt:
        """Return the outcome of a failed attempt: the delivery is due again, or dead."""
        failure = error if isinstance(error, DeliveryFailure) else self._unexpected(error)
        if isinstance(failure, ResultGone):
            # The provider returns fresh URLs.
            self.store.polling.query_at(delivery.task_id, started_at)
        retry_in = None
        if isinstance(failure, TemporaryFailure | ContentFailure):
            policy = self.policies().get(delivery.hook, self.policy)
            if outcome == failures.ABANDONED:
                policy = self.policy  # the hook's own schedule is for failures of its endpoint
            retry_in = policy.delay(
                failures.counted_attempts(self.store, delivery, outcome),
                chance=self.chance(),
                retry_after=failure.retry_after,
                apart=outcome == failures.ABANDONED,
            )
        state = State.DEAD if retry_in is None else State.PENDING
        done = Done(str(failure), failure.files)
        return self._outcome(
            delivery, started_at, outcome, state, done, notice, failure=failure, retry_in=retry_in
        )

    def _unexpected(self, error: Exception) -> DeliveryFailure:
        log.error("a hook broke", exc_info=error)
        # The error is at the end of a traceback, so the beginning is cut off.
        text = self.hide("".join(traceback.format_exception(error)))
        return failures.unexpected(error, text[-ANSWER_KEPT:])

    def _outcome(
        self,
        delivery: Delivery,
        started_at: int,
        outcome: str,
        state: State,
        done: Done,
        notice: Notice | None = None,
        *,
        failure: DeliveryFailure | None = None,
        retry_in: float | None = None,
    ) -> EndedAttempt:
        """Return the outcome of an attempt. Without a `notice`, the hook was not called."""
        ended_at = self.clock()
        answer = self.hide(storable(done.answer))[:ANSWER_KEPT]  # it may repeat the request
        attempt = Attempt(delivery.attempts, started_at, ended_at, outcome, answer)
        due_at = None if retry_in is None else ended_at + round(retry_in * 1000)
        change = None
        if notice is not None:
            change = partial(
                self.breaker.after,
                health=failures.endpoint_health(failure) if failure else EndpointHealth.WORKS,
                now=ended_at,
                said=answer,
                timed_out=failure is not None and failure.timed_out,
            )
        settlement = Settlement(delivery, attempt, state, due_at, done.files, change, done.output)
        return EndedAttempt(settlement, notice)

    def _count(self, settlement: Settlement, notice: Notice | None) -> None:
        delivery, state, files = settlement.delivery, settlement.state, settlement.files
        hook = delivery.hook if delivery.hook in self.hooks else metrics.UNKNOWN
        self.meter.count(metrics.ATTEMPTS, hook, RESULTS[state][2])
        if files:
            self.meter.count(metrics.DOWNLOADS, hook, by=len(files))
            size = sum(file.size for file in files)
            self.meter.count(metrics.DOWNLOAD_BYTES, hook, by=size)
        # For a redelivery, the time since the transition is meaningless.
        if state is State.DELIVERED and notice is not None and not delivery.retries_from:
            seconds = (self.clock() - notice.transition.recorded_at) / 1000
            self.meter.observe(metrics.DELIVERY_SECONDS, seconds, delivery.hook)


def _claim_of(delivery: Delivery) -> tuple[int, int]:
    """Return the key of a claim, because each claim of a delivery has its own attempt number."""
    return delivery.id, delivery.attempts


def _log_context(delivery: Delivery) -> AbstractContextManager[None]:
    """Name the delivery in every log line of the block."""
    return bound_contextvars(
        delivery=delivery.id,
        task=delivery.task_id,
        hook=delivery.hook,
        status=delivery.status,
        attempt=delivery.attempts,
    )
