"""The other sides of the hooks: how they stand; hold one, let it go on, try it.

A test event is only asked for here: a worker sends it, for this process makes no outgoing request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, flash, g, redirect, url_for
from werkzeug.wrappers import Response as AnyResponse

from receiver.deliveries import Subscription
from receiver.endpoints import Circuit, Endpoint
from receiver.errors import NotFound
from receiver.stores.base import Store
from receiver.stores.sql.endpoints import HookTest
from receiver.web.dashboard.deliveries import known_hooks
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.responses import page
from receiver.web.health import is_worker_seen


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """A hook. `subscription` None: it is not in the hooks file any more."""

    endpoint: Endpoint
    circuit: Circuit
    subscription: Subscription | None
    counts: Mapping[str, int]
    trial: HookTest | None  # the newest


def install(routes: Blueprint, desk: PageContext) -> None:
    store = desk.store

    @routes.get("/endpoints")
    def endpoints() -> str:
        return page(
            "endpoints",
            here="endpoints",
            shown=shown(desk, g.now),
            has_worker=is_worker_seen(store, g.now),
        )

    @routes.post("/endpoints/<hook>/pause")
    def pause(hook: str) -> AnyResponse:
        store.endpoints.pause(known(hook), g.now)
        flash(f"{hook} is paused: its deliveries wait, and cost no attempt.")
        return redirect(url_for("dashboard.endpoints"), 303)

    @routes.post("/endpoints/<hook>/resume")
    def resume(hook: str) -> AnyResponse:
        was_held = store.endpoints.resume(known(hook), g.now)
        flash(f"{hook} goes on." if was_held else f"Nothing was done: {hook} was at work.")
        return redirect(url_for("dashboard.endpoints"), 303)

    @routes.post("/endpoints/<hook>/test")
    def ask_trial(hook: str) -> AnyResponse:
        is_asked = store.endpoints.request_test(hook, subscription(hook).test_status, g.now)
        flash(
            f"A worker is asked to send a test event to {hook}."
            if is_asked
            else f"Nothing was done: a test event to {hook} is already on its way."
        )
        return redirect(url_for("dashboard.endpoints"), 303)

    def subscription(hook: str) -> Subscription:
        found = [one for one in desk.ingest.subscriptions if one.hook == hook]
        if not found:
            raise NotFound(f"no hook {hook} in the hooks file")
        return found[0]

    def known(hook: str) -> str:
        if hook not in known_hooks(desk):
            raise NotFound(f"no hook {hook}")
        return hook


def shown(desk: PageContext, now: int) -> list[EndpointRow]:
    """Every hook that is in the hooks file, or on record."""
    subscriptions = {one.hook: one for one in desk.ingest.subscriptions}
    endpoints = {endpoint.hook: endpoint for endpoint in desk.store.endpoints.all()}
    trials = {trial.hook: trial for trial in desk.store.endpoints.tests()}
    found = [endpoints.get(hook, Endpoint(hook)) for hook in known_hooks(desk)]
    return [
        EndpointRow(
            endpoint,
            endpoint.circuit(now),
            subscriptions.get(endpoint.hook),
            _counts(desk.store, endpoint.hook),
            trials.get(endpoint.hook),
        )
        for endpoint in found
    ]


def _counts(store: Store, hook: str) -> Mapping[str, int]:
    return {one.state: one.value for one in store.metrics.delivery_counts() if one.hook == hook}
