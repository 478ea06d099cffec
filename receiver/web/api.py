"""The record over HTTP: pages of tasks and deliveries, and their repair."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, validate

from receiver import providers
from receiver.clock import now_ms
from receiver.deliveries import State, task_json
from receiver.errors import NotAMismatch, RequestRefused
from receiver.ingest import Ingest
from receiver.serializers import records
from receiver.serializers.route_spec import RouteSpec, described
from receiver.serializers.schemas import (
    DeliveriesDocument,
    DeliveryDocument,
    HistoryDocument,
    OutcomeDocument,
    TasksDocument,
)
from receiver.tasks import Status
from receiver.web import cursors, problems

MAX_ROWS, DEFAULT_ROWS = 200, 50  # rows of one page
ROW = "int(max=9223372036854775807)"  # what a database can hold; anything above is no row


class _Status(fields.Field[Status]):
    """A status in our spelling or a provider's."""

    def __init__(self) -> None:
        super().__init__(metadata={"type": "string", "description": "In any spelling."})

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Status:
        known = value if value in tuple(Status) else providers.spelling(value)
        if known not in tuple(Status):
            raise ValidationError(f"is not known; use {', '.join(Status)}")
        return Status(known)


class _Cursor(fields.Field[int]):
    """The row that a cursor of this kind of list names."""

    def __init__(self, kind: str) -> None:
        said = {"type": "string", "description": "`next` of the page before."}
        super().__init__(load_default=None, attribute="before", metadata=said)
        self._kind = kind

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        return cursors.decode(self._kind, value)


class _Query(Schema):
    """What every list takes."""

    class Meta:
        unknown = RAISE

    limit = fields.Integer(load_default=DEFAULT_ROWS, validate=validate.Range(1, MAX_ROWS))


class TaskQuery(_Query):
    cursor = _Cursor("tasks")
    provider = fields.String(validate=validate.OneOf(sorted(providers.PROVIDERS)))
    status = _Status()
    reference = fields.String(validate=validate.Length(1, 1000))
    account = fields.String(validate=validate.Length(1, 64))


class DeliveryQuery(_Query):
    cursor = _Cursor("deliveries")
    task = fields.String(validate=validate.Length(1, 64), attribute="task_id")
    hook = fields.String(validate=validate.Length(1, 200))
    state = fields.Enum(State, by_value=True)


class ReplayQuery(Schema):
    class Meta:
        unknown = EXCLUDE

    accept = fields.Boolean(load_default=False)  # record a mismatch


def blueprint(ingest: Ingest) -> Blueprint:
    """The routes below /api that need nothing but the record."""
    routes = Blueprint("api", __name__)
    store, hooks = ingest.store, ingest.hooks
    routes.register_error_handler(ValidationError, problems.not_valid)

    @routes.get("/api/tasks")
    @described(RouteSpec(answers={200: TasksDocument}, query=TaskQuery, refuses=(422,)))
    def tasks() -> Response:
        """A page of tasks, newest first."""
        page = store.page_of_tasks(**_loaded(TaskQuery()))
        following = cursors.encode("tasks", page.next)
        return jsonify(tasks=[task_json(task) for task in page.rows], next=following)

    @routes.get("/api/tasks/<task_id>")
    @described(RouteSpec(answers={200: HistoryDocument}, refuses=(404,)))
    def task(task_id: str) -> Response:
        """One task with everything on record about it."""
        return jsonify(records.history_json(store.history(task_id), hooks))

    @routes.get("/api/deliveries")
    @described(RouteSpec(answers={200: DeliveriesDocument}, query=DeliveryQuery, refuses=(422,)))
    def deliveries() -> Response:
        """A page of deliveries, newest first."""
        page = store.page_of_deliveries(**_loaded(DeliveryQuery()))
        following = cursors.encode("deliveries", page.next)
        found = [records.delivery_json(delivery, hooks) for delivery in page.rows]
        return jsonify(deliveries=found, next=following)

    @routes.post(f"/api/deliveries/<{ROW}:delivery_id>/redeliver")
    @described(RouteSpec(answers={202: DeliveryDocument}, refuses=(404, 409)))
    def redeliver(delivery_id: int) -> tuple[Response, int] | Response:
        """Make a delivery that ended due again."""
        delivery = store.delivery(delivery_id)
        if delivery.state not in (State.DELIVERED, State.DEAD):
            detail = f"delivery {delivery_id} has not ended: it is {delivery.state}"
            return problems.problem(409, detail)
        store.redeliver(delivery_id, now_ms())
        return jsonify(records.delivery_json(store.delivery(delivery_id), hooks)), 202

    @routes.post(f"/api/callbacks/<{ROW}:callback_id>/replay")
    @described(
        RouteSpec(answers={200: OutcomeDocument}, query=ReplayQuery, refuses=(404, 409, 422))
    )
    def replay(callback_id: int) -> Response:
        """Parse and record a stored callback again, and optionally accept a mismatch."""
        accept = _loaded(ReplayQuery())["accept"]
        try:
            return jsonify(outcome=ingest.replay(callback_id, accept=accept))
        except NotAMismatch as refusal:
            return problems.problem(409, str(refusal))
        except RequestRefused as refusal:
            detail = f"callback {callback_id} is still not understood: {refusal}"
            return problems.problem(422, detail)

    return routes


def _loaded(schema: Schema) -> dict[str, Any]:
    """The query by the schema. Raises ValidationError, naming each field."""
    given = request.args.to_dict(flat=False)
    if twice := {name: ["stands twice"] for name, texts in given.items() if len(texts) > 1}:
        raise ValidationError(twice)
    wanted: dict[str, Any] = schema.load(request.args.to_dict())
    return wanted
