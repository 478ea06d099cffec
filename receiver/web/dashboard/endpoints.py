"""The page of the hooks' endpoints: their state, and buttons to pause, resume and test them.

This process makes no outgoing request: a worker sends the test event that is requested here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, flash, g, url_for
from werkzeug.wrappers import Response

from receiver.config.hooks_file import HEARABLE
from receiver.deliveries import Subscription
from receiver.errors import NotFound
from receiver.stores.sql.endpoint_status import EndpointStatus, endpoint_statuses
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.responses import back, page
from receiver.web.health import is_worker_seen


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """A hook and its endpoint. Without a subscription, it is not in the hooks file."""

    status: EndpointStatus
    subscription: Subscription | None
    counts: Mapping[str, int]

    @property
    def receives(self) -> list[str]:
        """The statuses whose events the hook receives, in the order of a task."""
        on = self.subscription.on if self.subscription else ()
        return [status for status in HEARABLE if status in on]


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
    return [
        EndpointRow(status, subscriptions.get(status.hook), context.delivery_counts(status.hook))
        for status in endpoint_statuses(
            context.store, context.known_hooks(), now, context.ingest.limits
        )
    ]
