"""Claims deliveries, calls their hooks, and records the outcomes.

A dispatcher decides which delivery runs and when. `DeliveryWorker` does the rest: `claim` takes due
deliveries for a limited time (a lease), and `run` attempts one of them and frees its slot.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from functools import partial

import structlog
from structlog.contextvars import bound_contextvars

from receiver import providers
from receiver.clock import now_ms
from receiver.deliveries import Attempt, Delivery, Notice, State
from receiver.delivery import failures
from receiver.delivery.worker_slots import Reservation, WorkerSlots
from receiver.endpoints import Breaker, EndpointHealth
from receiver.errors import (
    ContentFailure,
    DeliveryFailure,
    PermanentFailure,
    RequestRefused,
    ResultGone,
    StoreUnavailable,
    TemporaryFailure,
)
from receiver.events import Source
from receiver.hooks.base import Done, Hook
from receiver.observability import metrics
from receiver.observability.metrics import MetricBuffer
from receiver.outgoing.retry import RetryPolicy
from receiver.stores.base import Store
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
    slots: WorkerSlots = field(init=False)
    name: str = field(init=False)
    _claimed: dict[int, Delivery] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _seen_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.slots = WorkerSlots(self.concurrency, is_known=self.hooks.__contains__)
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    @property
    def is_busy(self) -> bool:
        """Whether the outcome of a claimed delivery is not recorded yet."""
        return bool(self._claimed)

    def claim(self) -> list[Delivery]:
        """Claim due deliveries for the free slots. Raises StoreUnavailable.

        Each claim begins an attempt. `upkeep` renews the lease until `run` has ended it.
        """
        now = self.clock()
        with Reservation(self.slots) as reservation:
            claimed = self.store.outbox.claim(
                self.name, now, now + LEASE, self.slots.free, reservation
            )
            self.keep(claimed, reservation)
        return claimed

    def keep(self, claimed: list[Delivery], reservation: Reservation) -> None:
        """Keep the slots and renew the leases of these deliveries until `run` has ended them."""
        by_id = {delivery.id: delivery for delivery in claimed}
        reservation.keep(by_id)
        with self._lock:
            self._claimed.update(by_id)

    def run(self, delivery: Delivery) -> None:
        """Attempt a claimed delivery, record the outcome, and free its slot."""
        state = State.PENDING
        try:
            state = self.attempt(delivery)
        except StoreUnavailable as error:  # the lease expires, and the delivery is attempted again
            with _log_context(delivery):
                log.error("an outcome is not on record", error=str(error))
            self.meter.store_failed()
        except Exception:
            log.exception("an attempt broke", delivery=delivery.id)
        finally:
            with self._lock:
                self._claimed.pop(delivery.id, None)
            self.slots.end(delivery.id, delivered=state is State.DELIVERED)

    def attempt(self, delivery: Delivery) -> State:
        """Call the hook of a claimed delivery, record the outcome, and return the new state.

        Any exception of the hook is a failed attempt. Raises StoreUnavailable if the outcome cannot
        be recorded.
        """
        started_at = self.clock()
        with _log_context(delivery):
            hook = self.hooks.get(delivery.hook)
            if hook is None:  # it was removed from the hooks file after the claim
                name = repr(delivery.hook)
                done = Done(f"the hook {name} is not in the hooks file: the delivery waits for it")
                return self._settle(delivery, started_at, "failed", State.PENDING, done, retry_in=0)
            notice = None
            try:
                endpoint = self.store.endpoints.of(delivery.hook)
                if endpoint.disabled_at is not None:
                    return self._fail(delivery, started_at, failures.hook_disabled(endpoint))
                notice = self.notice(delivery)
                # In a context of its own: values that the hook binds appear in no later log line.
                done = copy_context().run(hook.send, notice)
                return self._settle(
                    delivery, started_at, "delivered", State.DELIVERED, done, notice
                )
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - hooks may raise anything
                return self._fail(delivery, started_at, error, notice)

    def abandon(self, delivery: Delivery) -> State:
        """Record that the worker of this attempt died or stalled, and return the new state."""
        failure = TemporaryFailure("the worker died or stalled during this attempt")
        with _log_context(delivery):
            return self._fail(delivery, self.clock(), failure, outcome=failures.ABANDONED)

    def notice(self, delivery: Delivery) -> Notice:
        """Return the hook's notice. Raises NotFound, StoreUnavailable, PermanentFailure.

        The outputs are parsed from the stored callback, because bodies are stored once.
        """
        source = self.store.outbox.notice_source(delivery)
        if source.is_forgotten:
            raise PermanentFailure("the task was forgotten, so nothing is sent about it")
        callback = source.callback
        if callback is None or callback.source is Source.CREATE:
            return replace(source.notice, zone=self.zone)
        if not callback.body:
            raise PermanentFailure("the provider's message was pruned, so there is nothing to send")
        try:
            media = providers.parse(callback).media
        except RequestRefused as error:
            raise PermanentFailure(f"the stored message can no longer be read: {error}") from error
        return replace(source.notice, media=media, zone=self.zone)

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

    def _fail(
        self,
        delivery: Delivery,
        started_at: int,
        error: Exception,
        notice: Notice | None = None,
        *,
        outcome: str = "failed",
    ) -> State:
        """Record a failed attempt: the delivery is due again, or dead."""
        failure = error if isinstance(error, DeliveryFailure) else self._unexpected(error)
        if isinstance(failure, ResultGone):
            # The provider returns fresh URLs.
            self.store.polling.query_at(delivery.task_id, started_at)
        retry_in = None
        if isinstance(failure, TemporaryFailure | ContentFailure):
            retry_in = self.policy.delay(
                failures.counted_attempts(self.store, delivery, outcome),
                chance=self.chance(),
                retry_after=failure.retry_after,
                apart=outcome == failures.ABANDONED,
            )
        state = State.DEAD if retry_in is None else State.PENDING
        done = Done(str(failure), failure.files)
        return self._settle(
            delivery, started_at, outcome, state, done, notice, failure=failure, retry_in=retry_in
        )

    def _unexpected(self, error: Exception) -> DeliveryFailure:
        log.error("a hook broke", exc_info=error)
        # The error is at the end of a traceback, so the beginning is cut off.
        text = self.hide("".join(traceback.format_exception(error)))
        return failures.unexpected(error, text[-ANSWER_KEPT:])

    def _settle(
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
    ) -> State:
        """Record the outcome of an attempt. Without a `notice`, the hook was not called.

        Raises StoreUnavailable after RECORD_TRIES tries.
        """
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
        for tries_left in reversed(range(RECORD_TRIES)):
            try:
                if self.store.outbox.settle(delivery, attempt, state, due_at, done.files, change):
                    self._count(delivery, state, done, notice)
                break
            except StoreUnavailable:
                if not tries_left:
                    raise  # the lease expires, and the delivery is attempted again
                time.sleep(RECORD_AGAIN_AFTER)
        level, event, _ = RESULTS[state]
        log.log(level, event)
        return state

    def _count(self, delivery: Delivery, state: State, done: Done, notice: Notice | None) -> None:
        hook = delivery.hook if delivery.hook in self.hooks else metrics.UNKNOWN
        self.meter.count(metrics.ATTEMPTS, hook, RESULTS[state][2])
        if done.files:
            self.meter.count(metrics.DOWNLOADS, hook, by=len(done.files))
            size = sum(file.size for file in done.files)
            self.meter.count(metrics.DOWNLOAD_BYTES, hook, by=size)
        # For a redelivery, the time since the transition is meaningless.
        if state is State.DELIVERED and notice is not None and not delivery.retries_from:
            seconds = (self.clock() - notice.transition.recorded_at) / 1000
            self.meter.observe(metrics.DELIVERY_SECONDS, seconds, delivery.hook)


def _log_context(delivery: Delivery) -> AbstractContextManager[None]:
    """Name the delivery in every log line of the block."""
    return bound_contextvars(
        delivery=delivery.id,
        task=delivery.task_id,
        hook=delivery.hook,
        status=delivery.status,
        attempt=delivery.attempts,
    )
