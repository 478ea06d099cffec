"""The lists of deliveries and dead letters, and the form that redelivers many together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, flash, g, make_response, request, url_for
from werkzeug.wrappers import Response

from receiver import providers
from receiver.deliveries import Attempt, Delivery, State
from receiver.maintenance import repair
from receiver.stores.sql.queries import Picture
from receiver.stores.sql.repair import DeliverySelection
from receiver.tasks import Task
from receiver.web import cursors
from receiver.web.api import first_steps
from receiver.web.dashboard.page_context import (
    PAGE_SIZE,
    TIME_CHOICES,
    PageContext,
    provider_in,
    reference_in,
    row_before,
)
from receiver.web.dashboard.responses import back, page
from receiver.web.dashboard.results import thumbnail_of
from receiver.web.dashboard.waiting import Wait, WaitReasons

MAX_HOOK_NAME = 200  # characters
FILTERS = ("q", "hook", "state", "provider", "within", "since", "until")
ENDED = (State.DEAD, State.DELIVERED)


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery in the list, with its task, a picture of the task, and its attempts.

    `wait` is what a delivery that has not ended waits for.
    """

    delivery: Delivery
    task: Task | None
    picture: Picture | None
    attempts: tuple[Attempt, ...]
    wait: Wait | None
    is_forgotten: bool


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve the lists, and the form that redelivers many."""
    _install_redelivery(routes, context)

    @routes.get("/deliveries")
    def deliveries() -> str | Response:
        return list_page(request.args.to_dict(), "deliveries")

    @routes.get("/dead")
    def dead() -> str | Response:
        return list_page({**request.args.to_dict(), "state": State.DEAD.value}, "dead")

    def list_page(query: dict[str, str], here: str) -> str | Response:
        state = State(query["state"]) if query.get("state") in tuple(State) else None
        try:
            filters = _filters(context, query, g.now)
        except ValueError as error:
            return make_response(render(query, here, state, problem=str(error)), 400)
        before = row_before("deliveries", query.get("before", ""))
        found = context.store.lists.page_of_deliveries(
            before=before, limit=PAGE_SIZE, state=state, **filters
        )
        following = cursors.encode("deliveries", found.next)
        rows = _rows(context, found.rows, g.now)
        return render(query, here, state, rows=rows, following=following)

    def render(query: dict[str, str], here: str, state: State | None, **values: object) -> str:
        shown = {name: text for name, text in query.items() if name in FILTERS and text.strip()}
        if here == "dead":
            shown.pop("state", None)
        # Only the deliveries of a hook, or of all hooks, are counted by state.
        is_counted = shown.keys() <= {"hook", "state"}
        return page(
            "deliveries",
            here=here,
            query=query,
            state=state,
            filters=shown,
            hooks=context.known_hooks(),
            states=list(State),
            providers=sorted(providers.PROVIDERS),
            time_choices=TIME_CHOICES,
            counts=context.delivery_counts(query.get("hook") or None) if is_counted else {},
            **values,
        )


def _filters(context: PageContext, query: Mapping[str, str], now: int) -> dict[str, Any]:
    """Return all filters except the state, as arguments of `page_of_deliveries`.

    Raises ValueError with the problem.
    """
    hook = query.get("hook", "").replace("\0", "")[:MAX_HOOK_NAME] or None
    reference = reference_in(query)
    task_id = context.task_id(reference)
    return {
        "hook": hook,
        "provider": provider_in(query),
        "reference": None if task_id else reference,
        "task_id": task_id,
        "moved": context.times(query, now),
    }


def _install_redelivery(routes: Blueprint, context: PageContext) -> None:
    @routes.get("/redeliver")
    def redeliver_many() -> str | Response:
        """Show the form, and with `count`, how many deliveries it selects. Nothing changes."""
        query = request.args.to_dict()
        try:
            selection = _selection(context, query, g.now)
        except ValueError as error:
            return make_response(form_page(query, problem=str(error)), 400)
        if "count" not in query:
            return form_page(query)
        steps = repair.redeliver(
            context.store, context.ingest.subscriptions, selection, g.now, dry_run=True
        )
        count, is_all = first_steps(steps)
        return form_page(query, count=count, is_all=is_all)

    @routes.post("/redeliver")
    def redeliver_now() -> Response:
        form = dict(request.form.items())
        try:
            selection = _selection(context, form, g.now)
        except ValueError as error:
            return make_response(form_page(form, problem=str(error)), 400)
        steps = repair.redeliver(
            context.store, context.ingest.subscriptions, selection, g.now, dry_run=False
        )
        count, is_all = first_steps(steps)
        hint = "" if is_all else " There are more. Repeat this to redeliver the rest."
        flash(f"Redelivered: {count}.{hint}")
        return back(url_for("dashboard.deliveries", hook=selection.hook or None))

    def form_page(form: Mapping[str, str], **values: object) -> str:
        return page(
            "redeliver",
            here="dead",
            form=form,
            back=form.get("back", ""),
            hooks=context.known_hooks(),
            states=ENDED,
            providers=sorted(providers.PROVIDERS),
            **values,
        )


def _rows(context: PageContext, deliveries: tuple[Delivery, ...], now: int) -> list[DeliveryRow]:
    queries = context.store.queries
    task_ids = list({delivery.task_id for delivery in deliveries})
    tasks, pictures = queries.tasks_by_id(task_ids), queries.pictures(task_ids)
    attempts, forgotten = queries.attempts(deliveries), queries.forgotten(task_ids)
    reasons = WaitReasons.of(context.ingest, now)
    return [
        DeliveryRow(
            delivery,
            tasks.get(delivery.task_id),
            thumbnail_of(pictures.get(delivery.task_id, ())),
            attempts.get(delivery.id, ()),
            reasons.wait(delivery),
            delivery.task_id in forgotten,
        )
        for delivery in deliveries
    ]


def _selection(context: PageContext, form: Mapping[str, str], now: int) -> DeliverySelection:
    """Return the deliveries that the form selects. Raises ValueError with the problem."""
    state, hook = form.get("state") or State.DEAD.value, form.get("hook", "")
    if state not in ENDED:
        raise ValueError("State: choose dead or delivered.")
    if hook and hook not in context.known_hooks():
        raise ValueError(f"Hook: “{hook[:40]}” is unknown.")
    return DeliverySelection(
        State(state),
        hook or None,
        provider_in(form),
        since=context.instant("From", form.get("since", ""), now),
        until=context.instant("To", form.get("until", ""), now),
    )
