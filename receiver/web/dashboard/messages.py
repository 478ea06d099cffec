"""Stored messages as pages show them, and the page of the quarantine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, request

from receiver.providers.fields import cleaned, is_deep
from receiver.stores.sql.rows import StoredCallback
from receiver.tasks import Outcome
from receiver.web import cursors
from receiver.web.dashboard.page_context import PageContext, row_before
from receiver.web.dashboard.responses import page

MAX_INDENTED_LEVELS = 20  # real messages have four
MAX_CHARACTERS = 20_000  # characters; more would only make the page slow
QUARANTINE_PAGE_SIZE = 20  # messages; each is shown in full
REJECTIONS = 50  # requests
EXPLANATIONS = {
    Outcome.DUPLICATE: "The task already had this status, so nothing changed.",
    Outcome.STALE: "The task already had a later status, so nothing changed.",
    Outcome.CONFLICT: "It contradicts the final status on record, and changed nothing.",
    Outcome.CONFIRMING: "It counts only after a query has confirmed it.",
    Outcome.MISMATCH: "It names another provider task than the one on record, and changed nothing.",
    Outcome.QUARANTINED: "It could not be interpreted. After an update that can, replay it.",
}


@dataclass(frozen=True, slots=True)
class Message:
    """A stored callback with its body as text, which is empty if the body is not text."""

    stored: StoredCallback
    headers: list[tuple[str, str]]
    text: str
    is_cut: bool

    @property
    def explanation(self) -> str:
        """The meaning of its outcome; empty if it changed the status of its task."""
        return EXPLANATIONS.get(self.stored.outcome, "")


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve the page of the quarantine and the rejected requests."""

    @routes.get("/quarantine")
    def quarantine() -> str:
        before = row_before("quarantine", request.args.get("before", ""))
        stored = context.store.lists.page_of_quarantine(before=before, limit=QUARANTINE_PAGE_SIZE)
        return page(
            "quarantine",
            here="quarantine",
            messages=[message(row, context.hide) for row in stored.rows],
            tasks=context.store.queries.tasks_by_id(
                sorted({row.callback.task_id for row in stored.rows if row.callback.task_id})
            ),
            following=cursors.encode("quarantine", stored.next),
            rejections=context.store.activity.rejections(REJECTIONS),
        )


def message(stored: StoredCallback, hide: Callable[[str], str]) -> Message:
    """Return the message for display, without secrets. JSON is indented."""
    text = hide(_readable(stored.callback.readable))
    headers = [(name, hide(value)) for name, value in sorted(stored.callback.headers.items())]
    return Message(stored, headers, text[:MAX_CHARACTERS], len(text) > MAX_CHARACTERS)


def _readable(body: bytes) -> str:
    try:
        text = body.decode(json.detect_encoding(body), "replace")
        document = json.loads(text, strict=False, object_pairs_hook=_without_repeated_keys)
        # With deep nesting, the indentation would be longer than the message.
        indent = None if is_deep(document, MAX_INDENTED_LEVELS) else 2
        text = json.dumps(document, indent=indent, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
        if _is_binary(text):
            return ""
    return cleaned(text)


def _is_binary(text: str) -> bool:
    """Return whether more than a quarter of the first characters cannot be displayed."""
    start = text[:1000]
    unreadable = (char == "\ufffd" or not (char.isprintable() or char.isspace()) for char in start)
    return sum(unreadable) * 4 > len(start)


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the JSON object. Raises ValueError for a repeated key: both values must be shown."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is repeated")
    return document
