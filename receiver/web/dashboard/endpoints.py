"""The other sides of the hooks: how they stand; hold one, let it go on.

A test event would be sent from here, but only by the worker: this process makes no outgoing
request. It wants a delivery that no transition stands behind; the record has none today.
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
from receiver.web.dashboard.deliveries import known_hooks
from receiver.web.dashboard.desk import Desk
from receiver.web.dashboard.responses import page


@dataclass(frozen=True, slots=True)
class Shown:
    """A hook. `subscription` None: it is not in the hooks file any more."""

    endpoint: Endpoint
    circuit: Circuit
    subscription: Subscription | None
    counts: Mapping[str, int]


def install(routes: Blueprint, desk: Desk) -> None:
    store = desk.store

    @routes.get("/endpoints")
    def endpoints() -> str:
        return page("endpoints", here="endpoints", shown=shown(desk, g.now))

    @routes.post("/endpoints/<hook>/pause")
    def pause(hook: str) -> AnyResponse:
        store.hold(known(hook), g.now)
        flash(f"{hook} is paused: its deliveries wait, and cost no attempt.")
        return redirect(url_for("dashboard.endpoints"), 303)

    @routes.post("/endpoints/<hook>/resume")
    def resume(hook: str) -> AnyResponse:
        was_held = store.resume(known(hook))
        flash(f"{hook} goes on." if was_held else f"Nothing was done: {hook} was at work.")
        return redirect(url_for("dashboard.endpoints"), 303)

    def known(hook: str) -> str:
        if hook not in known_hooks(desk):
            raise NotFound(f"no hook {hook}")
        return hook


def shown(desk: Desk, now: int) -> list[Shown]:
    """Every hook that is in the hooks file, or on record."""
    subscriptions = {one.hook: one for one in desk.ingest.subscriptions}
    endpoints = {endpoint.hook: endpoint for endpoint in desk.store.endpoints()}
    found = [endpoints.get(hook, Endpoint(hook)) for hook in known_hooks(desk)]
    return [
        Shown(
            endpoint,
            endpoint.circuit(now),
            subscriptions.get(endpoint.hook),
            _counts(desk.store, endpoint.hook),
        )
        for endpoint in found
    ]


def _counts(store: Store, hook: str) -> Mapping[str, int]:
    return {one.state: one.value for one in store.delivery_counts() if one.hook == hook}
