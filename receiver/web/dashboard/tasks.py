"""The list and the gallery of tasks, filtered by provider, status, reference and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, g, make_response, redirect, request, url_for
from marshmallow import ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from receiver import providers
from receiver.tasks import Status
from receiver.web import cursors
from receiver.web.dashboard.page_context import (
    PAGE_SIZE,
    TIME_CHOICES,
    PageContext,
    provider_in,
    reference_in,
)
from receiver.web.dashboard.responses import page
from receiver.web.dashboard.results import task_rows

OPEN = (Status.CREATED, Status.SUBMITTED, Status.PROCESSING)
STATUS_CHOICES: Mapping[str, tuple[Status, ...]] = {
    "": tuple(Status),
    "open": OPEN,
    **{status.value: (status,) for status in Status},
}


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve the list. A search for an id opens the page of its task."""

    @routes.get("/tasks")
    def tasks() -> str | Response:
        query = {name: text.strip() for name, text in request.args.items()}
        try:
            filters = _filters(context, request.args, g.now)
        except ValueError as error:
            return make_response(_page(query, problem=str(error)), 400)
        if task_id := context.task_id(filters["reference"]):
            return redirect(url_for("dashboard.task", task_id=task_id))
        found = context.store.lists.page_of_tasks(**filters, limit=PAGE_SIZE)
        following = cursors.encode("tasks", found.next)
        return _page(query, rows=task_rows(context.store, found.rows), following=following)


def _filters(context: PageContext, query: MultiDict[str, str], now: int) -> dict[str, Any]:
    """Return the filters in the query string, as arguments of `page_of_tasks`.

    Raises ValueError with the problem.
    """
    status = query.get("status", "").strip()
    if status not in STATUS_CHOICES:
        raise ValueError(f"Status: “{status[:40]}” is unknown.")
    try:
        cursor = query.get("before", "")
        before = cursors.decode("tasks", cursor) if cursor else None
    except ValidationError:
        raise ValueError("This page of the list does not exist. Start at the first one.") from None
    return {
        "status": STATUS_CHOICES[status],
        "provider": provider_in(query),
        "reference": reference_in(query),
        "created": context.times(query, now),
        "before": before,
    }


def _page(query: Mapping[str, str], **values: Any) -> str:
    in_form = {name: text for name, text in query.items() if text and name != "before"}
    return page(
        "tasks",
        here="tasks",
        query=query,
        filters=in_form,
        statuses=list(STATUS_CHOICES),
        providers=sorted(providers.PROVIDERS),
        time_choices=TIME_CHOICES,
        is_gallery=query.get("view") == "gallery",
        **values,
    )
