"""One attempt at one delivery: ask the hook, and put on record how it went."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo

from structlog.contextvars import bound_contextvars

from receiver import providers
from receiver.clock import now_ms
from receiver.deliveries import Attempt, Delivery, Notice, State
from receiver.endpoints import AlertKind, Breaker, Endpoint, EndpointHealth
from receiver.errors import (
    ContentFailure,
    DeliveryFailure,
    EndpointGone,
    PermanentFailure,
    RequestRefused,
    ResultGone,
    StoreUnavailable,
    TemporaryFailure,
    TimedOut,
)
from receiver.events import Media, Source
from receiver.hooks.base import Done, Hook
from receiver.observability import metrics
from receiver.observability.metrics import MetricBuffer
from receiver.outgoing.retry import RetryPolicy
from receiver.stores.base import NoticeSource, Store
from receiver.stores.upkeep import Change
from receiver.text.display import storable
from receiver.text.redaction import redacted

ABANDONED = "abandoned"  # an outcome: the worker died or stalled
ANSWER_KEPT = 2_000  # characters of what the other side said
SAID_REPEATED = 100  # characters of what an endpoint said in a delivery of another task
RECORD_TRIES = 10  # how often the outcome is offered to a store that is unavailable
RECORD_AGAIN_AFTER = 1.0  # seconds
FILE_ERRORS = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
OUTCOME = {State.DELIVERED: "delivered", State.PENDING: "retry", State.DEAD: "dead"}


@dataclass(frozen=True, slots=True)
class Deliver:
    """Attempts deliveries with these hooks, and decides what follows a failure."""

    store: Store
    hooks: Mapping[str, Hook]
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: Breaker = field(default_factory=Breaker)
    clock: Callable[[], int] = now_ms
    chance: Callable[[], float] = random.random
    hide: Callable[[str], str] = redacted  # the secrets in what the other side says
    meter: MetricBuffer = field(default_factory=MetricBuffer)
    zone: tzinfo = UTC  # in which people are shown times

    def attempt(self, delivery: Delivery) -> State:
        """Attempt a claimed delivery; how it stands after that.

        It runs in its own context, so that values that a hook binds appear in no later log line.
        """
        return copy_context().run(self._attempt_named, delivery)

    def _attempt_named(self, delivery: Delivery) -> State:
        with concerning(delivery):
            return self._attempt(delivery)

    def _attempt(self, delivery: Delivery) -> State:
        started_at = self.clock()
        hook = self.hooks.get(delivery.hook)
        if hook is None:  # it was removed from the hooks file after the claim
            said = f"the hook {delivery.hook!r} is not in the hooks file: the delivery waits for it"
            return self._settle(delivery, started_at, "failed", State.PENDING, Done(said), delay=0)
        try:
            self._refuse_disabled(delivery.hook)
            notice = self.notice(delivery)
        except DeliveryFailure as failure:  # nothing was sent: it says nothing of the endpoint
            return self._after_failure(delivery, started_at, "failed", failure)
        try:
            done = hook.send(notice)
        except DeliveryFailure as failure:
            return self.failed(delivery, started_at, failure)
        return self._settle(
            delivery,
            started_at,
            "delivered",
            State.DELIVERED,
            done,
            verdict=EndpointHealth.WORKS,
            timed_out=False,
            moved_at=notice.transition.recorded_at,
        )

    def failed(self, delivery: Delivery, started_at: int, failure: DeliveryFailure) -> State:
        """Record an attempt that the hook failed: the delivery is due again, or dead."""
        if isinstance(failure, ResultGone):
            self.store.ask_at(delivery.task_id, started_at)  # the provider gives fresh URLs
        verdict, timed_out = _verdict(failure), failure.timed_out
        return self._after_failure(delivery, started_at, "failed", failure, verdict, timed_out)

    def abandoned(self, delivery: Delivery) -> State:
        """Put on record that the worker which held this delivery is gone."""
        failure = TemporaryFailure("the worker died or stalled during this attempt")
        return self._after_failure(delivery, self.clock(), ABANDONED, failure)

    def notice(self, delivery: Delivery) -> Notice:
        """What the hook is told. Raises NotFound, StoreUnavailable, PermanentFailure."""
        told = self.store.told(delivery)
        if told.is_forgotten:
            raise PermanentFailure("the task was forgotten: nothing is told of it any more")
        return replace(told.notice, media=_media(told), zone=self.zone)

    def _refuse_disabled(self, hook: str) -> None:
        endpoint = self.store.endpoint(hook)
        if endpoint.disabled_at is not None:
            raise PermanentFailure(
                f"nothing was sent: the hook is disabled, because {_beginning(endpoint.said)}; "
                f"correct the cause, then: receiver endpoints resume {hook}"
            )

    def _after_failure(
        self,
        delivery: Delivery,
        started_at: int,
        outcome: str,
        failure: DeliveryFailure,
        verdict: EndpointHealth | None = None,
        timed_out: bool | None = None,
    ) -> State:
        delay = None
        if isinstance(failure, TemporaryFailure | ContentFailure):
            delay = self.policy.delay(
                self._attempts_used(delivery, outcome),
                chance=self.chance(),
                retry_after=failure.retry_after,
                apart=outcome == ABANDONED,
            )
        state = State.DEAD if delay is None else State.PENDING
        done = Done(str(failure), failure.files)
        return self._settle(delivery, started_at, outcome, state, done, delay, verdict, timed_out)

    def _attempts_used(self, delivery: Delivery, outcome: str) -> int:
        """Return how many attempts count towards the retry limit, including the one that now ends.

        An abandoned attempt is no evidence against its delivery, because another delivery may have
        killed the worker; several in a row are. So after a failed attempt only failed attempts
        count, and after an abandoned one only the abandoned attempts directly before it.
        """
        made = delivery.attempts - delivery.retries_from
        try:
            attempts = self.store.attempts([delivery]).get(delivery.id, ())
        except StoreUnavailable:  # `_settle` tries again to store the outcome
            return made
        before = [
            attempt.outcome == ABANDONED
            for attempt in attempts
            if delivery.retries_from < attempt.number < delivery.attempts
        ]
        if outcome != ABANDONED:
            return made - sum(before)
        in_a_row = next((n for n, was in enumerate(reversed(before)) if not was), len(before))
        return 1 + in_a_row

    def _settle(
        self,
        delivery: Delivery,
        started_at: int,
        outcome: str,
        state: State,
        done: Done,
        delay: float | None = None,
        verdict: EndpointHealth | None = None,
        timed_out: bool | None = None,
        moved_at: int | None = None,
    ) -> State:
        ended_at = self.clock()
        due_at = None if delay is None else ended_at + round(delay * 1000)
        attempt = Attempt(
            number=delivery.attempts,
            started_at=started_at,
            ended_at=ended_at,
            outcome=outcome,
            answer=self.hide(storable(done.answer))[:ANSWER_KEPT],  # it may echo what it was told
        )
        change = self._endpoint_change(verdict, timed_out, attempt)
        for tries_left in reversed(range(RECORD_TRIES)):
            try:
                if self.store.settle(delivery, attempt, state, due_at, done.files, change):
                    self._count(delivery, state, done, moved_at)
            except StoreUnavailable:
                if not tries_left:
                    raise  # the lease runs out, and the delivery is attempted again
                time.sleep(RECORD_AGAIN_AFTER)
            else:
                break
        return state

    def _count(self, delivery: Delivery, state: State, done: Done, moved_at: int | None) -> None:
        hook = delivery.hook if delivery.hook in self.hooks else metrics.UNKNOWN
        self.meter.count(metrics.ATTEMPTS, hook, OUTCOME[state])
        if done.files:
            self.meter.count(metrics.DOWNLOADS, hook, by=len(done.files))
            size = sum(file.size for file in done.files)
            self.meter.count(metrics.DOWNLOAD_BYTES, hook, by=size)
        # What is delivered again says nothing of how long it takes.
        if moved_at is not None and not delivery.retries_from:
            took = (self.clock() - moved_at) / 1000
            self.meter.observe(metrics.DELIVERY_SECONDS, took, delivery.hook)

    def _endpoint_change(
        self, verdict: EndpointHealth | None, timed_out: bool | None, attempt: Attempt
    ) -> Change | None:
        """Return how the attempt changes its endpoint; None if it called no endpoint."""
        if timed_out is None:
            return None

        def change(endpoint: Endpoint) -> tuple[Endpoint, AlertKind | None]:
            alert = None
            if verdict is not None:
                endpoint, alert = self.breaker.after(
                    endpoint, verdict, attempt.ended_at, attempt.answer
                )
            return replace(endpoint, timed_out=timed_out), alert

        return change


def concerning(delivery: Delivery) -> AbstractContextManager[None]:
    """Names the delivery in every log line inside."""
    return bound_contextvars(
        delivery=delivery.id,
        task=delivery.task_id,
        hook=delivery.hook,
        status=delivery.status,
        attempt=delivery.attempts,
    )


def unexpected(error: Exception, text: str) -> DeliveryFailure:
    """Return the failure for an exception that is not a DeliveryFailure.

    Network and operating system errors concern the endpoint, unless they are about a file that
    only this event needs. Any other exception is a bug in the hook that this event triggers, and
    must not delay other events.
    """
    if any("Timeout" in kind.__name__ for kind in type(error).__mro__):  # of any library
        return TimedOut(text)
    concerns_endpoint = isinstance(error, OSError) and not isinstance(error, FILE_ERRORS)
    return TemporaryFailure(text) if concerns_endpoint else ContentFailure(text)


def _beginning(said: str) -> str:
    """Return what an endpoint said, without what follows a colon: it may be about another task."""
    return said.partition(": ")[0][:SAID_REPEATED]


def _verdict(failure: DeliveryFailure) -> EndpointHealth | None:
    """Return what the failure means for the circuit breaker; None if it has no effect.

    An endpoint that refuses one delivery permanently has answered, so it works. If an attempt made
    some of its files, the endpoint counts neither as working nor as failing.
    """
    if isinstance(failure, EndpointGone):
        return EndpointHealth.GONE
    if isinstance(failure, ContentFailure) or failure.files:
        return None
    return EndpointHealth.FAILS if isinstance(failure, TemporaryFailure) else EndpointHealth.WORKS


def _media(told: NoticeSource) -> tuple[Media, ...]:
    """The outputs, read again from the message on record: bodies are stored once."""
    callback = told.callback
    if callback is None or callback.source is Source.CREATE:
        return ()
    if not callback.body:
        raise PermanentFailure("what the provider said was pruned: there is nothing left to tell")
    try:
        return providers.parse(callback).media
    except RequestRefused as refusal:
        raise PermanentFailure(
            f"the stored message cannot be read any more: {refusal}"
        ) from refusal
