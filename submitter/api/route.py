"""The route `POST /api/tasks`."""

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
from receiver.serializers.schemas import TaskWithMediaDocument
from receiver.text import limits
from submitter.api.errors import (
    RejectedByProvider,
    RejectedPicture,
    TaskForgotten,
    TemporarilyUnavailable,
)
from submitter.api.idempotency import ApiReply, IdempotencyKeys, check_key
from submitter.api.request_body import documented_schemas, read_request
from submitter.api.synchronous_create import OpenAdapter, SynchronousCreator
from submitter.providers import DEFAULT_PROVIDER, open_provider

LONGEST_BODY = limits.MAX_API_BODY  # bytes
# Requests that create a task or wait for one with the same key. Other threads serve callbacks.
MAX_REQUESTS = 10


EXAMPLE = {
    "provider": DEFAULT_PROVIDER,
    "human": "https://shop.example/person.jpg",
    "cloth": "https://shop.example/garment.png",
    "reference": "ORDER-7",
    "metadata": {"cart": 7},
}


def blueprint(
    ingest: Ingest,
    settings: Settings,
    open_adapter: OpenAdapter = open_provider,
    keys: IdempotencyKeys | None = None,
) -> Blueprint:
    """Return the route. It raises the errors in `STATUS`."""
    routes = Blueprint("create", __name__)
    keys = keys or IdempotencyKeys(ingest.store)
    creator = SynchronousCreator(ingest, settings, keys, open_adapter)
    slots = BoundedSemaphore(MAX_REQUESTS)

    @routes.post("/api/tasks")
    @described(
        RouteSpec(
            answers={201: TaskWithMediaDocument},
            body=documented_schemas(),
            example=EXAMPLE,
            headers={
                "Idempotency-Key": "Requests with the same key create one task only.",
                "Prefer": "`wait=30`: respond when the task ends, or after 30 s.",
            },
            refuses=(400, 409, 410, 413, 415, 422, 502),
        )
    )
    def create() -> Response:
        """Submit one try-on; the status is 201 once the provider has accepted it."""
        key = request.headers.get("Idempotency-Key")
        if key is not None:
            check_key(key)
        if not request.is_json:
            abort(415, "Send application/json.")
        with _slot(slots):
            request.max_content_length = LONGEST_BODY  # of this request only
            return respond(key, request.get_data(cache=False))

    def respond(key: str | None, body: bytes) -> Response:
        task_request = read_request(body)
        adapter = creator.adapter_for(task_request)
        if key is None:
            return _response(creator.create(adapter, task_request))
        reply, is_replayed = keys.reply(
            key,
            hashlib.sha256(body).digest(),
            lambda claim: creator.create(adapter, task_request, claim),
        )
        if is_replayed:
            after_this_request(_mark_replayed)
        return _response(reply)

    return routes


@contextmanager
def _slot(slots: BoundedSemaphore) -> Iterator[None]:
    """Hold one of the slots. Raises TemporarilyUnavailable if all are in use."""
    if not slots.acquire(blocking=False):
        raise TemporarilyUnavailable("too many tasks are being created")
    try:
        yield
    finally:
        slots.release()


def _response(reply: ApiReply) -> Response:
    """Return the task. Raises RejectedByProvider, which becomes a problem document."""
    document = dict(reply.document)
    if reply.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        raise RejectedPicture(document.pop("detail"), document)
    if reply.status == HTTPStatus.GONE:
        raise TaskForgotten(document["detail"])
    if reply.status != HTTPStatus.CREATED:
        raise RejectedByProvider(document.pop("detail"), document)
    bind_contextvars(task=document["id"])
    response = jsonify(document)
    response.status_code = HTTPStatus.CREATED
    response.headers["Location"] = f"/api/tasks/{document['id']}"
    return response


def _mark_replayed(response: Response) -> Response:
    response.headers["Idempotent-Replayed"] = "true"
    return response
