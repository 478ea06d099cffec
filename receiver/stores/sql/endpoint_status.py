"""The status of each hook's endpoint, as the commands, the doctor and the dashboard show it.

A refused event has no effect on the circuit breaker, because it says nothing about the endpoint.
People still need to see it, so the status also depends on the last attempts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from types import MappingProxyType

from receiver.deliveries import Attempt, State
from receiver.endpoints import Circuit, Endpoint, Limits, Pace
from receiver.stores.base import Store
from receiver.stores.sql.endpoints import HookTest, HookTestOutcome
from receiver.text.display import without_traceback

NEWEST = 10  # deliveries of a hook in each state, among which its last attempts are looked up
HEALTHY = "healthy"
NOT_USED = "not used yet"
FAILING = "failing"  # the circuit breaker counts the failures, and will open the circuit
REFUSED = "last attempt failed"  # the circuit breaker does not count it, such as a refused event
TEST_FAILED = "test failed"
_UNAUTHORIZED = re.compile(r"\banswered 401\b")


def advice_after(response: str) -> str:
    """Return what to check after this response; empty if it does not suggest a cause."""
    unauthorized = _UNAUTHORIZED.search(response)
    return "check that the endpoint uses the same secret as the hook" if unauthorized else ""


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint with its circuit breaker, its last attempts and its newest test event.

    `held` is set while due deliveries wait only because of the limits. `next_at` is the time at
    which the rate allows the next delivery.
    """

    endpoint: Endpoint
    circuit: Circuit
    failed: tuple[Attempt, ...]  # the last attempts, newest first, as far as they all failed
    last_attempt: Attempt | None  # at one of the newest deliveries
    newest_test: HookTest | None
    limits: Limits = field(default_factory=Limits)
    held: Pace | None = None
    next_at: int | None = None

    @property
    def hook(self) -> str:
        return self.endpoint.hook

    @property
    def state(self) -> str:
        """The state of the circuit breaker, or how the last attempt ended if it is closed."""
        if self.circuit is not Circuit.CLOSED:
            return self.circuit.value
        if self.endpoint.failures:
            return FAILING
        if test := self._newer_test():
            return HEALTHY if test.outcome is HookTestOutcome.DELIVERED else TEST_FAILED
        if self.last_attempt is None:
            return NOT_USED
        return REFUSED if self.failed else HEALTHY

    @property
    def has_problem(self) -> bool:
        """Whether the state is neither healthy nor unknown."""
        return self.state not in (HEALTHY, NOT_USED)

    @property
    def failures(self) -> int:
        """The number of the last attempts that failed in a row."""
        return max(len(self.failed), self.endpoint.failures)

    @property
    def failing_since(self) -> int | None:
        """When the first of these attempts failed; None without any."""
        times = [attempt.ended_at for attempt in self.failed[-1:]]
        if self.endpoint.failing_since is not None:
            times.append(self.endpoint.failing_since)
        return min(times, default=None)

    @property
    def last_response(self) -> str:
        """The response to the last attempt or test event, or the error; empty if unknown."""
        test = self._newer_test()
        return without_traceback(test.answer) if test else self.last_delivery_response

    @property
    def last_delivery_response(self) -> str:
        """The response to the last attempt at a delivery, or the error; empty if unknown."""
        answer = self.last_attempt.answer if self.last_attempt else ""
        return without_traceback(answer or self.endpoint.said)

    @property
    def failure(self) -> str:
        """The failure of the last attempts or of the test event; empty without any."""
        if self.state == TEST_FAILED:
            return "the last test event failed"
        if self.failures < 2:
            return "the last attempt failed" if self.failures else ""
        return f"the last {self.failures} attempts failed"

    @property
    def advice(self) -> str:
        """What to check after the last response; empty if it does not suggest a cause."""
        return advice_after(self.last_response) if self.has_problem else ""

    def wait(self, when: Callable[[int], str]) -> str:
        """Return the limit that due deliveries are waiting for; empty if there is none.

        `when` formats a time.
        """
        if self.held is None:
            return ""
        if self.next_at is None:
            return f"{self.held.text}, {self.held.running} running"
        return f"{self.held.text}, next at {when(self.next_at)}"

    def _newer_test(self) -> HookTest | None:
        """Return the newest test event if it ended after the last attempt."""
        test, last = self.newest_test, self.last_attempt
        if test is None or test.ended_at is None:
            return None
        return test if last is None or test.ended_at > last.ended_at else None


def endpoint_statuses(
    store: Store,
    hooks: Iterable[str],
    now: int,
    limits: Mapping[str, Limits] = MappingProxyType({}),
) -> list[EndpointStatus]:
    """Return the status of each of these hooks, in their order, at the time `now`."""
    endpoints = {endpoint.hook: endpoint for endpoint in store.endpoints.all()}
    tests = {test.hook: test for test in store.endpoints.tests()}
    paces = store.outbox.held(limits, now)
    statuses = []
    for hook in hooks:
        endpoint, attempts = endpoints.get(hook, Endpoint(hook)), _last_attempts(store, hook)
        failed = takewhile(lambda attempt: attempt.outcome != "delivered", attempts)
        pace = paces.get(hook)
        statuses.append(
            EndpointStatus(
                endpoint,
                endpoint.circuit(now),
                tuple(failed),
                attempts[0] if attempts else None,
                tests.get(hook),
                limits.get(hook, Limits()),
                pace,
                None if pace is None else pace.opens_at(now),
            )
        )
    return statuses


def _last_attempts(store: Store, hook: str) -> list[Attempt]:
    """Return the attempts at the newest deliveries to a hook, newest first."""
    deliveries = store.lists.deliveries(hook=hook, limit=NEWEST)
    for state in (State.DEAD, State.DELIVERED):
        deliveries += store.lists.deliveries(hook=hook, state=state, limit=NEWEST)
    attempts = store.queries.attempts(deliveries).values()
    every = [attempt for of_delivery in attempts for attempt in of_delivery]
    return sorted(every, key=lambda attempt: (attempt.ended_at, attempt.number), reverse=True)
