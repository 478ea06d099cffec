"""Many deliveries made due again: first how many they are, then a button that does it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from flask import Blueprint, flash, g, make_response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from receiver import providers
from receiver.deliveries import State
from receiver.maintenance import repair
from receiver.stores.sql.repair import DeliverySelection
from receiver.web.dashboard.deliveries import known_hooks
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.responses import page
from receiver.web.redelivery import STEPS

ENDED = (State.DEAD, State.DELIVERED)


def install(routes: Blueprint, desk: PageContext) -> None:
    store = desk.store

    @routes.get("/redeliver")
    def redeliver_many() -> str | AnyResponse:
        """A dry run: nothing changes."""
        given = dict(request.args.items())
        try:
            wanted = read(desk, given, g.now)
        except ValueError as error:
            return make_response(show(given, problem=str(error)), 400)
        if "count" not in given:
            return show(given)
        found, is_all = changed(wanted, dry_run=True)
        return show(given, found=found, is_all=is_all)

    @routes.post("/redeliver")
    def redeliver_now() -> AnyResponse:
        given = dict(request.form.items())
        try:
            wanted = read(desk, given, g.now)
        except ValueError as error:
            return make_response(show(given, problem=str(error)), 400)
        found, is_all = changed(wanted, dry_run=False)
        more = "" if is_all else " There are more: do it again for the rest."
        flash(f"Made due again: {found}.{more}")
        return redirect(url_for("dashboard.deliveries", hook=wanted.hook or None), 303)

    def changed(wanted: DeliverySelection, *, dry_run: bool) -> tuple[int, bool]:
        steps = repair.redeliver(store, wanted, g.now, dry_run=dry_run)
        taken = list(islice(steps, STEPS))
        return sum(step.changed for step in taken), taken[-1].next is None

    def show(given: Mapping[str, str], **values: object) -> str:
        return page(
            "redeliver",
            here="dead",
            given=given,
            hooks=known_hooks(desk),
            states=ENDED,
            providers=sorted(providers.PROVIDERS),
            **values,
        )


def read(desk: PageContext, given: Mapping[str, str], now: int) -> DeliverySelection:
    """Which deliveries the form means. Raises ValueError that says what is wrong."""
    state, provider = given.get("state", State.DEAD.value), given.get("provider", "")
    hook = given.get("hook", "")
    if state not in ENDED:
        raise ValueError("State: choose dead or delivered.")
    if provider and provider not in providers.PROVIDERS:
        raise ValueError(f"Provider: “{provider[:40]}” is not known.")
    if hook and hook not in known_hooks(desk):
        raise ValueError(f"Hook: “{hook[:40]}” is not known.")
    return DeliverySelection(
        State(state),
        hook or None,
        provider or None,
        since=desk.instant("From", given.get("since", ""), now),
        until=desk.instant("To", given.get("until", ""), now),
    )
