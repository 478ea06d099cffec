"""The page of the hooks' endpoints: their state, and buttons to pause, resume and test them.

This process makes no outgoing request: a worker sends the test event that is requested here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, flash, g, url_for
from werkzeug.wrappers import Response

from receiver.config.hooks_file import HEARABLE
from receiver.deliveries import Attempt, Subscription
from receiver.endpoints import Circuit, Endpoint
from receiver.errors import NotFound
from receiver.stores.base import Store
from receiver.stores.sql.endpoints import HookTest, HookTestOutcome
from receiver.web.dashboard.deliveries import ENDED
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.responses import back, page
from receiver.web.health import is_worker_seen

NEWEST = 10  # deliveries of a hook in each state, among which its last attempt is looked up


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """A hook and its endpoint. Without a subscription, it is not in the hooks file."""

    endpoint: Endpoint
    circuit: Circuit
    subscription: Subscription | None
    counts: Mapping[str, int]
    newest_test: HookTest | None
    last_attempt: Attempt | None  # of the newest deliveries

    @property
    def receives(self) -> list[str]:
        """The statuses whose events the hook receives, in the order of a task."""
        on = self.subscription.on if self.subscription else ()
        return [status for status in HEARABLE if status in on]

    @property
    def state(self) -> str:
        """The state of the circuit breaker, or how the last attempt ended if it is closed."""
        if self.circuit is not Circuit.CLOSED:
            return self.circuit.value
        if self.endpoint.failures:
            return "failing"
        last, test = self.last_attempt, self.newest_test
        tested_at = None if test is None else test.ended_at
        if (
            test is not None
            and tested_at is not None
            and (last is None or tested_at > last.ended_at)
        ):
            return "working" if test.outcome is HookTestOutcome.DELIVERED else "test failed"
        if last is None:
            return "not used yet"
        return "working" if last.outcome == "delivered" else "last attempt failed"


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve the page and its buttons."""
    store = context.store

    @routes.get("/endpoints")
    def endpoints() -> str:
        has_worker = is_worker_seen(store, g.now)
        rows = _rows(context, g.now)
        return page("endpoints", here="endpoints", rows=rows, has_worker=has_worker)

    @routes.post("/endpoints/<hook>/pause")
    def pause(hook: str) -> Response:
        store.endpoints.pause(_known(context, hook), g.now)
        return _done(hook, f"{hook} is paused. Its deliveries wait, and use no attempts.")

    @routes.post("/endpoints/<hook>/resume")
    def resume(hook: str) -> Response:
        is_resumed = store.endpoints.resume(_known(context, hook), g.now)
        unchanged = f"Nothing was done: {hook} was not paused, disabled or failing."
        return _done(hook, f"{hook} is resumed." if is_resumed else unchanged)

    @routes.post("/endpoints/<hook>/test")
    def request_test(hook: str) -> Response:
        is_new = store.endpoints.request_test(hook, _subscription(context, hook).test_status, g.now)
        unchanged = f"Nothing was done: a test event to {hook} is already waiting."
        will_be_sent = f"A worker will send a test event to {hook}."
        return _done(hook, will_be_sent if is_new else unchanged)


def _done(hook: str, text: str) -> Response:
    flash(text)
    return back(url_for("dashboard.endpoints"), f"hook-{hook}")


def _subscription(context: PageContext, hook: str) -> Subscription:
    for subscription in context.ingest.subscriptions:
        if subscription.hook == hook:
            return subscription
    raise NotFound(f"no hook {hook} in the hooks file")


def _known(context: PageContext, hook: str) -> str:
    if hook not in context.known_hooks():
        raise NotFound(f"no hook {hook}")
    return hook


def _rows(context: PageContext, now: int) -> list[EndpointRow]:
    """Return a row for every hook that is in the hooks file or on record."""
    subscriptions = {one.hook: one for one in context.ingest.subscriptions}
    endpoints = {endpoint.hook: endpoint for endpoint in context.store.endpoints.all()}
    tests = {test.hook: test for test in context.store.endpoints.tests()}
    return [
        EndpointRow(
            endpoint := endpoints.get(hook, Endpoint(hook)),
            endpoint.circuit(now),
            subscriptions.get(hook),
            context.delivery_counts(hook),
            tests.get(hook),
            _last_attempt(context.store, hook),
        )
        for hook in context.known_hooks()
    ]


def _last_attempt(store: Store, hook: str) -> Attempt | None:
    """Return the last attempt at one of the newest deliveries to a hook; None without any."""
    deliveries = store.lists.deliveries(hook=hook, limit=NEWEST)
    for state in ENDED:
        deliveries += store.lists.deliveries(hook=hook, state=state, limit=NEWEST)
    attempts = store.queries.attempts(deliveries)
    last = (of_delivery[-1] for of_delivery in attempts.values())
    return max(last, key=lambda attempt: attempt.ended_at, default=None)
