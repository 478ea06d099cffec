"""`POST /api/tasks`: creates a task over HTTP, once for each Idempotency-Key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import BoundedSemaphore

from flask import Blueprint, Response, abort, after_this_request, jsonify, request
from structlog.contextvars import bind_contextvars

from receiver.config.settings import Settings
from receiver.ingest import Ingest
from receiver.serializers.route_spec import RouteSpec, described
from receiver.serializers.schemas import TaskDocument
from receiver.text import limits
from submitter import once, uploads
from submitter.once import Once, Reply
from submitter.providers import open_provider
from submitter.refusals import STATUS, NotNow, Refused
from submitter.window import LATER, Opens, Window

LONGEST_BODY = limits.MAX_API_BODY  # bytes
# Those that create and those that wait for their twins. The other threads are for callbacks.
MOST_INSIDE = 10


def blueprint(
    ingest: Ingest, settings: Settings, opens: Opens = open_provider, keys: Once | None = None
) -> Blueprint:
    """The route; its errors are those of `STATUS`."""
    routes = Blueprint("create", __name__)
    keys = keys or Once(ingest.store)
    window = Window(ingest, settings, keys, opens)
    places = BoundedSemaphore(MOST_INSIDE)

    @routes.post("/api/tasks")
    @described(
        RouteSpec(
            answers={201: TaskDocument},
            body=(uploads.NewTask,),
            headers={"Idempotency-Key": "Sent again with the same key, it makes no second task."},
            refuses=(400, 409, 413, 415, 422, 502),
        )
    )
    def create() -> Response:
        """Submit one try-on; 201 once the provider has taken it."""
        key = request.headers.get("Idempotency-Key")
        if key is not None:
            once.check(key)
        if not request.is_json:
            abort(415, "Send application/json.")
        with _place(places):
            return answer(key, _body())

    def answer(key: str | None, body: bytes) -> Response:
        upload = uploads.read(body)
        room = window.room(upload)
        if key is None:
            return _told(window.create(room, upload))
        digest = hashlib.sha256(body).digest()
        reply, is_replayed = keys.answer(
            key, digest, lambda held: window.create(room, upload, held)
        )
        if is_replayed:
            after_this_request(_mark_replayed)
        return _told(reply)

    return routes


@contextmanager
def _place(places: BoundedSemaphore) -> Iterator[None]:
    """A place among the few that may be inside. Raises NotNow."""
    if not places.acquire(blocking=False):
        raise NotNow("too many tasks are being created", retry_after=LATER)
    try:
        yield
    finally:
        places.release()


def _body() -> bytes:
    request.max_content_length = LONGEST_BODY  # of this request only
    return request.get_data(cache=False)


def _told(reply: Reply) -> Response:
    """The task. Raises Refused, for the problem document that a refusal is."""
    document = dict(reply.document)
    if reply.status != HTTPStatus.CREATED:
        raise Refused(document.pop("detail"), document)
    bind_contextvars(task=document["id"])
    response = jsonify(document)
    response.status_code = HTTPStatus.CREATED
    response.headers["Location"] = f"/api/tasks/{document['id']}"
    return response


def _mark_replayed(response: Response) -> Response:
    response.headers["Idempotent-Replayed"] = "true"
    return response


__all__ = ["STATUS", "blueprint"]
