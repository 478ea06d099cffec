"""Explains why a delivery that has not ended is waiting."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from receiver.deliveries import Delivery, State
from receiver.endpoints import Circuit, Endpoint, Pace
from receiver.ingest import Ingest
from receiver.web.dashboard import formats
from receiver.web.health import is_worker_seen


@dataclass(frozen=True, slots=True)
class Wait:
    """The reason why a delivery waits, as a phrase.

    `cause` is the phrase without the time, and empty if only the time matters. `at` is when the
    delivery probably continues, if that is known.
    """

    text: str
    cause: str
    at: int | None = None


@dataclass(frozen=True, slots=True)
class WaitReasons:
    """The possible causes of waits: endpoints, hooks in the hooks file, and workers."""

    endpoints: Mapping[str, Endpoint]  # those that fail, or are paused or disabled
    hooks: Collection[str]
    has_worker: bool
    now: int
    held: Mapping[str, Pace]  # the hooks whose limits are used up

    @classmethod
    def of(cls, ingest: Ingest, now: int) -> WaitReasons:
        store = ingest.store
        endpoints = {endpoint.hook: endpoint for endpoint in store.endpoints.all()}
        held = store.outbox.held(ingest.limits, now)
        return cls(endpoints, ingest.hooks, is_worker_seen(store, now), now, held)

    def wait(self, delivery: Delivery) -> Wait | None:
        """Return the delivery's wait; None if it has ended."""
        if delivery.state is State.CLAIMED:
            cause = f"attempt {delivery.attempts} is running"
            return Wait(cause, cause, delivery.due_at)
        if delivery.state is not State.PENDING:
            return None
        if delivery.lacks_hook(self.hooks):
            return self._wait("waits, because its hook is not in the hooks file")
        if delivery.is_waiting(self.now):
            cause = f"waits for {delivery.after} to end"
            return self._wait(cause, "and is sent without it", delivery.due_at)
        endpoint = self.endpoints.get(delivery.hook, Endpoint(delivery.hook))
        return self._of_endpoint(endpoint, delivery) or self._of_time(delivery)

    def _of_endpoint(self, endpoint: Endpoint, delivery: Delivery) -> Wait | None:
        """Return the wait for the endpoint; None if the endpoint is used."""
        circuit = endpoint.circuit(self.now)
        if circuit is Circuit.PAUSED:
            return self._wait("endpoint paused by an operator, waits until it is resumed")
        if circuit is Circuit.DISABLED:
            return self._wait("endpoint disabled, so it becomes a dead letter")
        if circuit is Circuit.OPEN:
            at = max(endpoint.retry_at or 0, delivery.due_at or 0)
            return self._wait("endpoint paused after failures", "next try", at)
        if circuit is Circuit.HALF_OPEN:
            return self._wait("endpoint being tested with one delivery", "due", delivery.due_at)
        return None

    def _of_time(self, delivery: Delivery) -> Wait:
        at = delivery.due_at or self.now
        if at <= self.now and not self.has_worker:
            return self._wait("no worker is running", "due", at)
        if at <= self.now and (pace := self.held.get(delivery.hook)) is not None:
            return self._wait(f"waits for the {pace.text}", "next", pace.opens_at(self.now))
        return self._wait("", "next try" if delivery.attempts else "due", at)

    def _wait(self, cause: str, event: str = "", at: int | None = None) -> Wait:
        """Return the wait for a cause, and for an event at a time."""
        timed = "" if at is None else f"{event} {formats.until(at, self.now)}"
        return Wait(", ".join(part for part in (cause, timed) if part), cause, at)
