"""Requests that wait until their task ends: `?wait=30`, and `Prefer: wait=30` (RFC 7240)."""

from __future__ import annotations

import re
from contextlib import suppress

from flask import Blueprint, Response, jsonify, request
from marshmallow import Schema, fields, validate

from receiver.errors import StoreError, TooManyListeners
from receiver.serializers.outputs import task_documents
from receiver.stores.base import Store
from receiver.tasks import Status
from receiver.text import limits
from receiver.web.live.feed import EventFeed
from receiver.web.live.listener import HAND_OVER, WAITED
from receiver.web.live.on_threads import wait_on_thread, while_needed

CREATED = "receiver.created"  # in the environ: the response to the create request before the wait
APPLIED = "Preference-Applied"
PREFER = {
    "Prefer": f"`wait=30`: respond when the task ends, or after 30 s; at most {limits.MAX_WAIT} s."
}
FINAL = tuple(status.value for status in Status if status.is_terminal)
_WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?', re.IGNORECASE)
_OF_THE_BODY = ("content-length", "content-type")


class WaitQuery(Schema):
    """How long to wait for the end of a task."""

    wait = fields.Integer(
        load_default=0,
        validate=validate.Range(0, limits.MAX_WAIT),
        metadata={"description": "Seconds to wait for the end of the task."},
    )


def preferred_seconds() -> int:
    """Return the wait in the Prefer header, at most MAX_WAIT; 0 if there is none."""
    for part in ",".join(request.headers.getlist("Prefer")).split(","):
        if found := _WAIT.fullmatch(part):
            return min(int(found[1]), limits.MAX_WAIT)
    return 0


def wait_until_ended(feed: EventFeed, task_id: str, seconds: int) -> bool:
    """Wait until the task ends, but at most this long.

    Returns False if the event loop waits instead; the application is then called again, and this
    response is discarded. Raises TooManyListeners, StoreUnavailable.
    """
    if WAITED in request.environ:
        return True
    wait = feed.wait(task_id, seconds)
    if HAND_OVER in request.environ:
        request.environ[HAND_OVER] = wait
        return False
    wait_on_thread(wait, while_needed(request.environ, feed.is_serving))
    return True


def mark_applied(response: Response, seconds: int) -> Response:
    """Add the header that confirms the preference."""
    if seconds:
        response.headers[APPLIED] = f"wait={seconds}"
    return response


def install(routes: Blueprint, store: Store, feed: EventFeed) -> None:
    """Let `POST /api/tasks` respond when the task ends, if the client sends `Prefer: wait=…`.

    If there are too many listeners, or the store fails, it responds immediately.
    """

    @routes.before_request
    def respond_after_wait() -> Response | None:
        created: Response | None = request.environ.get(CREATED)
        return None if created is None else _current(store, created)

    @routes.after_request
    def wait(response: Response) -> Response:
        is_create = request.method == "POST" and request.path == "/api/tasks"
        if not is_create or response.status_code != 201 or CREATED in request.environ:
            return response
        seconds, document = preferred_seconds(), response.get_json()
        if not seconds or document["status"] in FINAL:
            return mark_applied(response, seconds)
        try:
            if wait_until_ended(feed, document["id"], seconds):
                return _current(store, response)
        except (TooManyListeners, StoreError):
            return response
        request.environ[CREATED] = response
        return response


def _current(store: Store, created: Response) -> Response:
    """Return the response with the current state of the task, or unchanged if the store fails."""
    document = created.get_json()
    with suppress(StoreError):  # the task was created, so the response must not be an error
        (document,) = task_documents(store, [store.queries.task(document["id"])])
    response = jsonify(document)
    response.status_code = created.status_code
    for name, value in created.headers.items():
        if name.lower() not in _OF_THE_BODY:
            response.headers[name] = value
    return mark_applied(response, preferred_seconds())
