"""The record over HTTP: pages of tasks and deliveries, and their repair."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request
from marshmallow import RAISE, Schema, ValidationError, fields, validate

from receiver import providers, shapes
from receiver.clock import now_ms
from receiver.deliveries import State, task_json
from receiver.errors import RequestRefused
from receiver.ingest import Ingest
from receiver.tasks import Status
from receiver.web import cursors, problems

MOST, USUAL = 200, 50  # rows of one page
ROW = "int(max=9223372036854775807)"  # what a database can hold; anything above is no row


class _Query(Schema):
    """What every list takes."""

    class Meta:
        unknown = RAISE

    limit = fields.Integer(load_default=USUAL, validate=validate.Range(1, MOST))
    cursor = fields.String(load_default=None)


class TaskQuery(_Query):
    provider = fields.String(validate=validate.OneOf(sorted(providers.PROVIDERS)))
    status = fields.String()
    reference = fields.String(validate=validate.Length(1, 1000))
    account = fields.String(validate=validate.Length(1, 64))


class DeliveryQuery(_Query):
    task = fields.String(validate=validate.Length(1, 64))
    hook = fields.String(validate=validate.Length(1, 200))
    state = fields.Enum(State, by_value=True)


def blueprint(ingest: Ingest) -> Blueprint:
    """The routes below /api that need nothing but the record."""
    routes = Blueprint("api", __name__)
    store = ingest.store
    routes.register_error_handler(ValidationError, _invalid)

    @routes.get("/api/tasks")
    def tasks() -> Response:
        """A page of tasks, newest first."""
        wanted = _loaded(TaskQuery(), "tasks")
        if "status" in wanted:
            wanted["status"] = _status(wanted["status"])
        page = store.page_of_tasks(**wanted)
        following = cursors.written("tasks", page.next)
        return jsonify(tasks=[task_json(task) for task in page.rows], next=following)

    @routes.get("/api/tasks/<task_id>")
    def task(task_id: str) -> Response:
        """One task with everything on record about it."""
        return jsonify(shapes.history_json(store.history(task_id)))

    @routes.get("/api/deliveries")
    def deliveries() -> Response:
        """A page of deliveries, newest first."""
        wanted = _loaded(DeliveryQuery(), "deliveries")
        if "task" in wanted:
            wanted["task_id"] = wanted.pop("task")
        page = store.page_of_deliveries(**wanted)
        following = cursors.written("deliveries", page.next)
        found = [shapes.delivery_json(delivery) for delivery in page.rows]
        return jsonify(deliveries=found, next=following)

    @routes.post(f"/api/deliveries/<{ROW}:delivery_id>/redeliver")
    def redeliver(delivery_id: int) -> tuple[Response, int] | Response:
        """Make a delivery that ended due again."""
        delivery = store.delivery(delivery_id)
        if delivery.state not in (State.DELIVERED, State.DEAD):
            detail = f"delivery {delivery_id} has not ended: it is {delivery.state}"
            return problems.problem(409, detail)
        store.redeliver(delivery_id, now_ms())
        return jsonify(shapes.delivery_json(store.delivery(delivery_id))), 202

    @routes.post(f"/api/callbacks/<{ROW}:callback_id>/replay")
    def replay(callback_id: int) -> Response:
        """Send a stored callback through parse and record again."""
        try:
            return jsonify(outcome=ingest.replay(callback_id))
        except RequestRefused as refusal:
            detail = f"callback {callback_id} is still not understood: {refusal}"
            return problems.problem(422, detail)

    return routes


def _loaded(schema: Schema, kind: str) -> dict[str, Any]:
    """The query by the schema, `cursor` as the row `before`. Raises ValidationError."""
    given = request.args.to_dict(flat=False)
    if twice := {name: ["stands twice"] for name, texts in given.items() if len(texts) > 1}:
        raise ValidationError(twice)
    wanted: dict[str, Any] = schema.load(request.args.to_dict())
    cursor = wanted.pop("cursor")
    try:
        wanted["before"] = None if cursor is None else cursors.read(kind, cursor)
    except ValidationError as error:
        raise ValidationError({"cursor": error.messages}) from None
    return wanted


def _status(word: str) -> Status:
    """Our status for ours or a provider's spelling. Raises ValidationError."""
    known = word if word in tuple(Status) else providers.spelling(word)
    if known in tuple(Status):
        return Status(known)
    raise ValidationError({"status": [f"is not known; use {', '.join(Status)}"]})


def _invalid(error: ValidationError) -> Response:
    messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return problems.invalid({name: " ".join(map(str, texts)) for name, texts in messages.items()})
