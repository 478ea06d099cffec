"""The lists of deliveries and dead letters, and the form that redelivers many together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, flash, g, make_response, redirect, request, url_for
from werkzeug.wrappers import Response

from receiver import providers
from receiver.deliveries import Attempt, Delivery, State
from receiver.maintenance import repair
from receiver.stores.base import Store
from receiver.stores.sql.repair import DeliverySelection
from receiver.tasks import Task
from receiver.web import cursors
from receiver.web.api import first_steps
from receiver.web.dashboard.page_context import PAGE_SIZE, PageContext, row_before
from receiver.web.dashboard.responses import page

MAX_HOOK_NAME = 200  # characters
ENDED = (State.DEAD, State.DELIVERED)


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery in the list, with its task and its attempts."""

    delivery: Delivery
    task: Task | None
    attempts: tuple[Attempt, ...]


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve the lists, and the form that redelivers many."""
    _install_redelivery(routes, context)

    @routes.get("/deliveries")
    def deliveries() -> str:
        return list_page(dict(request.args.items()), "deliveries")

    @routes.get("/dead")
    def dead() -> str:
        return list_page({**request.args.to_dict(), "state": State.DEAD.value}, "dead")

    def list_page(query: dict[str, str], here: str) -> str:
        hook = query.get("hook", "").replace("\0", "")[:MAX_HOOK_NAME] or None
        state = State(query["state"]) if query.get("state") in tuple(State) else None
        before = row_before("deliveries", query.get("before", ""))
        found = context.store.lists.page_of_deliveries(
            before=before, limit=PAGE_SIZE, hook=hook, state=state
        )
        return page(
            "deliveries",
            here=here,
            hook=hook,
            state=state,
            hooks=context.known_hooks(),
            states=list(State),
            counts=context.delivery_counts(),
            rows=_rows(context.store, found.rows),
            following=cursors.encode("deliveries", found.next),
        )


def _install_redelivery(routes: Blueprint, context: PageContext) -> None:
    @routes.get("/redeliver")
    def redeliver_many() -> str | Response:
        """Show the form, and with `count`, how many deliveries it selects. Nothing changes."""
        query = dict(request.args.items())
        try:
            selection = _selection(context, query, g.now)
        except ValueError as error:
            return make_response(form_page(query, problem=str(error)), 400)
        if "count" not in query:
            return form_page(query)
        steps = repair.redeliver(context.store, selection, g.now, dry_run=True)
        count, is_all = first_steps(steps)
        return form_page(query, count=count, is_all=is_all)

    @routes.post("/redeliver")
    def redeliver_now() -> Response:
        form = dict(request.form.items())
        try:
            selection = _selection(context, form, g.now)
        except ValueError as error:
            return make_response(form_page(form, problem=str(error)), 400)
        steps = repair.redeliver(context.store, selection, g.now, dry_run=False)
        count, is_all = first_steps(steps)
        hint = "" if is_all else " There are more. Repeat this to redeliver the rest."
        flash(f"Redelivered: {count}.{hint}")
        return redirect(url_for("dashboard.deliveries", hook=selection.hook or None), 303)

    def form_page(form: Mapping[str, str], **values: object) -> str:
        return page(
            "redeliver",
            here="dead",
            form=form,
            hooks=context.known_hooks(),
            states=ENDED,
            providers=sorted(providers.PROVIDERS),
            **values,
        )


def _rows(store: Store, deliveries: tuple[Delivery, ...]) -> list[DeliveryRow]:
    tasks = store.queries.tasks_by_id(list({delivery.task_id for delivery in deliveries}))
    attempts = store.queries.attempts(deliveries)
    return [
        DeliveryRow(delivery, tasks.get(delivery.task_id), attempts.get(delivery.id, ()))
        for delivery in deliveries
    ]


def _selection(context: PageContext, form: Mapping[str, str], now: int) -> DeliverySelection:
    """Return the deliveries that the form selects. Raises ValueError with the problem."""
    state, provider = form.get("state", State.DEAD.value), form.get("provider", "")
    hook = form.get("hook", "")
    if state not in ENDED:
        raise ValueError("State: choose dead or delivered.")
    if provider and provider not in providers.PROVIDERS:
        raise ValueError(f"Provider: “{provider[:40]}” is unknown.")
    if hook and hook not in context.known_hooks():
        raise ValueError(f"Hook: “{hook[:40]}” is unknown.")
    return DeliverySelection(
        State(state),
        hook or None,
        provider or None,
        since=context.instant("From", form.get("since", ""), now),
        until=context.instant("To", form.get("until", ""), now),
    )
