"""The endpoint of a hook and its circuit breaker; pure.

Each hook has a circuit breaker. Closed: deliveries are attempted. Open, after repeated failures: no
delivery is attempted, and waiting uses up no attempt. Half-open, after the pause: one delivery at a
time is attempted as a probe; a success closes the circuit, a failure opens it for longer. A content
failure concerns one result or event, so it has no effect on the circuit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

# Pauses after the circuit opened, and after each probe that failed, in seconds; the last repeats.
DEFAULT_PAUSES = (30, 60, 120, 300, 600, 900)
SAID_KEPT = 500  # characters of the last failure


class Circuit(StrEnum):
    """How an endpoint stands."""

    CLOSED = "closed"  # it is told everything; left after sustained failure
    OPEN = "open"  # it is left alone until `retry_at`
    HALF_OPEN = "half-open"  # one delivery at a time, until one works (closed) or fails (open)
    PAUSED = "paused"  # by the operator; left by `resume`
    DISABLED = "disabled"  # e.g. after 410 Gone: deliveries become dead letters, until `resume`


class EndpointHealth(StrEnum):
    """What an attempt says of its endpoint."""

    WORKS = "works"  # it answered, if only to refuse this one delivery
    FAILS = "fails"  # no answer, or one that says: not now
    GONE = "gone"  # it wants nothing more


class AlertKind(StrEnum):
    """What people are told of an endpoint."""

    PAUSED = "paused"
    RECOVERED = "recovered"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is known of the other side of one hook. Instants are integer milliseconds UTC."""

    hook: str
    failures: int = 0  # attempts that failed in a row
    failing_since: int | None = None
    openings: int = 0  # how often the circuit opened since it was last closed; 0: it is closed
    retry_at: int | None = None  # while it is open: when it is probed
    paused_at: int | None = None  # by the operator
    disabled_at: int | None = None
    said: str = ""  # the last failure
    timed_out: bool = False  # whether the last attempt timed out

    def circuit(self, now: int) -> Circuit:
        """How it stands at this instant."""
        if self.disabled_at is not None:
            return Circuit.DISABLED
        if self.paused_at is not None:
            return Circuit.PAUSED
        if not self.openings:
            return Circuit.CLOSED
        return Circuit.OPEN if now < (self.retry_at or 0) else Circuit.HALF_OPEN


@dataclass(frozen=True, slots=True)
class Alert:
    """One message to people about an endpoint: when it is paused or disabled, and once it works."""

    id: int
    hook: str
    kind: AlertKind
    at: int
    said: str  # the last failure

    @property
    def title(self) -> str:
        """One line for people."""
        return {
            AlertKind.PAUSED: f'The hook "{self.hook}" is paused: its endpoint keeps failing',
            AlertKind.RECOVERED: f'The hook "{self.hook}" works again',
            AlertKind.DISABLED: f'The hook "{self.hook}" is disabled: its endpoint is gone',
        }[self.kind]

    @property
    def text(self) -> str:
        """What it means, and what to do."""
        return {
            AlertKind.PAUSED: "Its deliveries wait, and are made once it works. "
            f"The last attempt: {self.said}",
            AlertKind.RECOVERED: "What waited is being delivered.",
            AlertKind.DISABLED: "Its deliveries go dead. Mend or remove the hook; then: "
            f"receiver endpoints resume {self.hook}; receiver redeliver --hook {self.hook}",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a circuit opens, and for how long.

    A single failure, or a restart of some seconds, opens nothing.
    """

    failures: int = 5  # in a row
    seconds: float = 20  # from the first of them to the last
    pauses: tuple[float, ...] = DEFAULT_PAUSES

    def after(
        self, endpoint: Endpoint, verdict: EndpointHealth, now: int, said: str
    ) -> tuple[Endpoint, AlertKind | None]:
        """The endpoint after an attempt, and what people have to be told, once for each change."""
        if verdict is EndpointHealth.WORKS:
            return self._after_success(endpoint)
        said = said[:SAID_KEPT]
        if verdict is EndpointHealth.GONE:
            alert = None if endpoint.disabled_at is not None else AlertKind.DISABLED
            return replace(endpoint, disabled_at=endpoint.disabled_at or now, said=said), alert
        return self._after_failure(replace(endpoint, said=said), now)

    def _after_success(self, endpoint: Endpoint) -> tuple[Endpoint, AlertKind | None]:
        closed = Endpoint(
            endpoint.hook, paused_at=endpoint.paused_at, disabled_at=endpoint.disabled_at
        )
        return closed, AlertKind.RECOVERED if endpoint.openings else None

    def _after_failure(self, endpoint: Endpoint, now: int) -> tuple[Endpoint, AlertKind | None]:
        since = now if endpoint.failing_since is None else endpoint.failing_since
        failing = replace(endpoint, failures=endpoint.failures + 1, failing_since=since)
        if endpoint.circuit(now) is Circuit.OPEN:
            return failing, None  # an attempt that had begun before it opened
        is_sustained = failing.failures >= self.failures and now - since >= self.seconds * 1000
        if not endpoint.openings and not is_sustained:
            return failing, None
        pause = self.pauses[min(endpoint.openings, len(self.pauses) - 1)]
        opened = replace(
            failing, openings=endpoint.openings + 1, retry_at=now + round(pause * 1000)
        )
        return opened, None if endpoint.openings else AlertKind.PAUSED
