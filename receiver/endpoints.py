"""The endpoint of a hook, its circuit breaker and its limits; pure.

Each hook has a circuit breaker. Closed: deliveries are attempted. Open, after repeated failures: no
delivery is attempted, and waiting uses up no attempt. Half-open, after the pause: one delivery at a
time is attempted as a probe; a success closes the circuit, a failure opens it for longer. A content
failure concerns one result or event, so it has no effect on the circuit.

The limits decide how fast deliveries begin, in all workers together; see docs/adr/0020-pacing.md.
The rate is limited by the generic cell rate algorithm (GCRA), whose only state is the time at which
the next delivery may begin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil
from typing import Any

from receiver.text.display import rfc3339

# Pauses after the circuit opened, and after each probe that failed, in seconds; the last repeats.
DEFAULT_PAUSES = (30, 60, 120, 300, 600, 900)
SAID_KEPT = 500  # characters of the last failure
PERIODS = {"s": 1_000, "m": 60_000, "h": 3_600_000}  # ms
# The fraction of a period that is kept in reserve. After a delivery that began late, the next ones
# catch up by at most LATE_BY; the rest allows for requests that take different times to arrive.
RESERVE = 0.05
LATE_BY = RESERVE / 2
# ms by which the clocks of two transactions may differ. A time later than any claim could have set
# it is ignored: the rate was raised, or the clock was set back.
PACES_APART = 10_000


class Circuit(StrEnum):
    """The state of an endpoint's circuit breaker."""

    CLOSED = "closed"  # deliveries are attempted; left after repeated failures
    OPEN = "open"  # no delivery is attempted until `retry_at`
    HALF_OPEN = "half-open"  # one probe at a time, until one succeeds (closed) or fails (open)
    PAUSED = "paused"  # by the operator; left by `resume`
    DISABLED = "disabled"  # such as after 410: deliveries become dead letters until `resume`

    @property
    def label(self) -> str:
        """The word that people see, because "closed" is easily misunderstood."""
        return "healthy" if self is Circuit.CLOSED else self.value


class EndpointHealth(StrEnum):
    """The health of an endpoint, according to one attempt."""

    WORKS = "works"  # it responded, even if it refused this one delivery
    FAILS = "fails"  # it did not respond, or responded that it is not available now
    GONE = "gone"  # it accepts no more deliveries


class AlertKind(StrEnum):
    """The changes of an endpoint that cause an alert."""

    PAUSED = "paused"
    RECOVERED = "recovered"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The state of one hook's endpoint. Times are integer milliseconds UTC."""

    hook: str
    failures: int = 0  # attempts that failed in a row
    failing_since: int | None = None
    openings: int = 0  # how often the circuit opened since it was last closed; 0: it is closed
    retry_at: int | None = None  # when the next probe is due; only while the circuit is open
    paused_at: int | None = None  # by the operator
    disabled_at: int | None = None
    said: str = ""  # the last failure
    timed_out: bool = False  # whether the last attempt timed out

    def circuit(self, now: int) -> Circuit:
        """Return the state of the circuit breaker at this time."""
        if self.disabled_at is not None:
            return Circuit.DISABLED
        if self.paused_at is not None:
            return Circuit.PAUSED
        if not self.openings:
            return Circuit.CLOSED
        return Circuit.OPEN if now < (self.retry_at or 0) else Circuit.HALF_OPEN


@dataclass(frozen=True, slots=True)
class Alert:
    """A message to people: an endpoint was paused or disabled, or works again."""

    id: int
    hook: str
    kind: AlertKind
    at: int
    said: str  # the last failure

    def as_json(self) -> dict[str, Any]:
        """Return the alert as webhooks and queues send it."""
        return {
            "id": f"alert:{self.id}",
            "type": f"endpoint.{self.kind}",
            "occurred_at": rfc3339(self.at),
            "hook": self.hook,
            "said": self.said,
        }

    @property
    def title(self) -> str:
        """A subject line."""
        return {
            AlertKind.PAUSED: f'The hook "{self.hook}" is paused: its endpoint keeps failing',
            AlertKind.RECOVERED: f'The hook "{self.hook}" works again',
            AlertKind.DISABLED: f'The hook "{self.hook}" is disabled: its endpoint is gone',
        }[self.kind]

    @property
    def text(self) -> str:
        """The consequences, and what to do."""
        return {
            AlertKind.PAUSED: "Its deliveries wait until the endpoint works again. "
            f"The last attempt: {self.said}",
            AlertKind.RECOVERED: "The deliveries that waited are being sent.",
            AlertKind.DISABLED: "Its deliveries become dead letters. Correct or remove the hook; "
            f"then run: receiver endpoints resume {self.hook}; "
            f"receiver redeliver --hook {self.hook}",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Breaker:
    """Decides when a circuit opens, and for how long.

    It stays closed after a single failure, and while the endpoint restarts within a few seconds.
    """

    failures: int = 5  # in a row
    seconds: float = 20  # from the first of them to the last
    pauses: tuple[float, ...] = DEFAULT_PAUSES

    def after(
        self,
        endpoint: Endpoint,
        health: EndpointHealth | None,
        now: int,
        said: str,
        *,
        timed_out: bool = False,
    ) -> tuple[Endpoint, AlertKind | None]:
        """Return the endpoint after an attempt, and the alert to send if its state has changed.

        Without a `health`, the attempt has no effect on the circuit.
        """
        alert = None
        if health is EndpointHealth.WORKS:
            alert = AlertKind.RECOVERED if endpoint.openings else None
            endpoint = Endpoint(
                endpoint.hook, paused_at=endpoint.paused_at, disabled_at=endpoint.disabled_at
            )
        elif health is EndpointHealth.GONE:
            alert = AlertKind.DISABLED if endpoint.disabled_at is None else None
            endpoint = replace(
                endpoint, disabled_at=endpoint.disabled_at or now, said=said[:SAID_KEPT]
            )
        elif health is EndpointHealth.FAILS:
            endpoint, alert = self._after_failure(replace(endpoint, said=said[:SAID_KEPT]), now)
        return replace(endpoint, timed_out=timed_out), alert

    def _after_failure(self, endpoint: Endpoint, now: int) -> tuple[Endpoint, AlertKind | None]:
        since = now if endpoint.failing_since is None else endpoint.failing_since
        failing = replace(endpoint, failures=endpoint.failures + 1, failing_since=since)
        if endpoint.circuit(now) is Circuit.OPEN:
            return failing, None  # this attempt began before the circuit opened
        is_sustained = failing.failures >= self.failures and now - since >= self.seconds * 1000
        if not endpoint.openings and not is_sustained:
            return failing, None
        pause = self.pauses[min(endpoint.openings, len(self.pauses) - 1)]
        opened = replace(
            failing, openings=endpoint.openings + 1, retry_at=now + round(pause * 1000)
        )
        return opened, None if endpoint.openings else AlertKind.PAUSED


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` deliveries begin in any period. `unit` is a key of PERIODS.

    More exactly, the first and the last of `count + 1` deliveries are at least
    `1 + RESERVE - LATE_BY` periods apart.
    """

    count: int
    unit: str

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"

    @property
    def per_second(self) -> float:
        return self.count * 1000 / PERIODS[self.unit]

    @property
    def tolerance(self) -> float:
        """How many ms earlier than evenly spaced a delivery may begin, if others began late."""
        return PERIODS[self.unit] * LATE_BY

    @property
    def interval(self) -> float:
        """The minimum average time between deliveries, in ms."""
        return PERIODS[self.unit] * (1 + RESERVE) / self.count


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one hook, which all workers share; None means no limit."""

    rate: Rate | None = None
    concurrency: int | None = None  # deliveries that run at the same time

    def __bool__(self) -> bool:
        return self.rate is not None or self.concurrency is not None

    def __str__(self) -> str:
        rate = [] if self.rate is None else [str(self.rate)]
        at_a_time = [] if self.concurrency is None else [f"{self.concurrency} at a time"]
        return ", ".join(rate + at_a_time)


@dataclass(frozen=True, slots=True)
class Pace:
    """The limits of a hook and how far they are used up."""

    limits: Limits
    next_at: float | None  # when the rate allows the next delivery; None if none has begun yet
    running: int  # claimed deliveries of all workers whose lease has not expired

    @property
    def is_full(self) -> bool:
        """Whether as many deliveries are running as `concurrency` allows."""
        concurrency = self.limits.concurrency
        return concurrency is not None and self.running >= concurrency

    @property
    def used_up(self) -> str:
        """The limit that is used up if no delivery may begin: `rate` or `concurrency`."""
        return "concurrency" if self.is_full else "rate"

    @property
    def text(self) -> str:
        """The limit that is used up, for messages to people."""
        if self.is_full:
            return f"concurrency limit {self.limits.concurrency}"
        return f"rate limit {self.limits.rate}"

    def opens_at(self, now: int) -> int | None:
        """Return the time at which the limits allow, or allowed, the next delivery.

        Returns None if a running delivery must end first.
        """
        if self.is_full:
            return None
        return 0 if self.limits.rate is None else ceil(self._allowed_at(self.limits.rate, now))

    def allowed(self, now: int, most: int) -> int:
        """Return how many deliveries may begin now, at most `most`."""
        rate, concurrency = self.limits.rate, self.limits.concurrency
        if concurrency is not None:
            most = min(most, max(0, concurrency - self.running))
        if rate is not None:
            most = min(most, int((now - self._next(rate, now)) // rate.interval) + 1)
        return max(0, most)

    def next_after(self, begun: int, now: int) -> float | None:
        """Return the new `next_at` after this number of deliveries began."""
        rate = self.limits.rate
        return self.next_at if rate is None else self._next(rate, now) + begun * rate.interval

    def _next(self, rate: Rate, now: int) -> float:
        """Return the time from which the next deliveries are spaced, at most `tolerance` ago."""
        return max(self._allowed_at(rate, now), now - rate.tolerance)

    def _allowed_at(self, rate: Rate, now: int) -> float:
        if self.next_at is None or self.next_at > now + rate.interval + PACES_APART:
            return 0
        return self.next_at
