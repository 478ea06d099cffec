"""Tasks: a list or a gallery, by provider, status, reference and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, g, make_response, redirect, request, url_for
from marshmallow import ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as AnyResponse

from receiver import providers
from receiver.errors import NotFound
from receiver.signing.callback_urls import TASK_ID
from receiver.stores.base import Store
from receiver.stores.sql.rows import TimeRange
from receiver.tasks import Status
from receiver.web import cursors
from receiver.web.dashboard.overview import OPEN
from receiver.web.dashboard.page_context import MOST, PageContext
from receiver.web.dashboard.responses import page
from receiver.web.dashboard.results import shown

STANDINGS: Mapping[str, tuple[Status, ...]] = {
    "": tuple(Status),
    "open": OPEN,
    **{status.value: (status,) for status in Status},
}
SPANS = {"": "Any time", "1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days"}
LONGEST = 1_000  # characters of what is searched for


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """What the form above the list says."""

    statuses: tuple[Status, ...]
    provider: str | None
    reference: str | None
    since: int | None
    until: int | None
    before: int | None


def install(routes: Blueprint, desk: PageContext) -> None:
    @routes.get("/tasks")
    def tasks() -> str | AnyResponse:
        given = {name: text.strip() for name, text in request.args.items()}
        try:
            wanted = read(desk, request.args, g.now)
        except ValueError as error:
            return make_response(_page(given, problem=str(error)), 400)
        if wanted.reference and (known := _by_id(desk.store, wanted.reference)):
            return redirect(url_for("dashboard.task", task_id=known))
        found = desk.store.lists.page_of_tasks(
            status=wanted.statuses,
            before=wanted.before,
            limit=MOST,
            provider=wanted.provider,
            reference=wanted.reference,
            created=TimeRange(since=wanted.since, until=wanted.until),
        )
        following = cursors.encode("tasks", found.next)
        return _page(given, shown=shown(desk.store, found.rows), following=following)


def read(desk: PageContext, given: MultiDict[str, str], now: int) -> TaskFilter:
    """The filters of the address. Raises ValueError that says what is wrong."""
    status, provider = given.get("status", "").strip(), given.get("provider", "").strip()
    if status not in STANDINGS:
        raise ValueError(f"Status: “{status[:40]}” is not known.")
    if provider and provider not in providers.PROVIDERS:
        raise ValueError(f"Provider: “{provider[:40]}” is not known.")
    try:
        cursor = given.get("before", "")
        before = cursors.decode("tasks", cursor) if cursor else None
    except ValidationError:
        raise ValueError("This page of the list does not exist; begin at the first.") from None
    reference = given.get("q", "").strip().replace("\0", "")[:LONGEST]
    return TaskFilter(
        STANDINGS[status],
        provider or None,
        reference or None,
        desk.instant("From", given.get("since") or given.get("within"), now),
        desk.instant("To", given.get("until"), now),
        before,
    )


def _by_id(store: Store, text: str) -> str | None:
    """The task that has this id, at our place or at a provider."""
    if not TASK_ID.fullmatch(text):
        return None
    if store.queries.tasks_by_id([text]):
        return text
    for provider in providers.PROVIDERS:
        try:
            return store.queries.task_by_provider_id(provider, text).id
        except NotFound:
            continue
    return None


def _page(given: Mapping[str, str], **values: Any) -> str:
    kept = {name: text for name, text in given.items() if text and name != "before"}
    return page(
        "tasks",
        here="tasks",
        given=given,
        kept=kept,
        statuses=list(STANDINGS),
        providers=sorted(providers.PROVIDERS),
        spans=SPANS,
        is_gallery=given.get("view") == "gallery",
        **values,
    )
