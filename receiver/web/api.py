"""The HTTP API for tasks, deliveries and stored callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from flask import Blueprint, Response, jsonify, request
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, validate

from receiver import providers
from receiver.clock import now_ms
from receiver.config import durations
from receiver.deliveries import State, task_json
from receiver.errors import NotAMismatch, RequestRefused
from receiver.ingest import Ingest
from receiver.maintenance import repair
from receiver.serializers import records, schemas
from receiver.serializers.route_spec import RouteSpec, described
from receiver.stores.sql.repair import DeliverySelection, RepairStep
from receiver.tasks import Status
from receiver.web import cursors, problems

STEPS = 40  # of 500 deliveries in one request; for more of them, clients repeat it
MAX_ROWS, DEFAULT_ROWS = 200, 50  # rows of one page
ROW = "int(max=9223372036854775807)"  # the largest row key of a database


class _Status(fields.Field[Status]):
    """A status in our spelling or that of a provider."""

    def __init__(self) -> None:
        super().__init__(metadata={"type": "string", "description": "In any spelling."})

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Status:
        known = value if value in tuple(Status) else providers.status_for(value)
        if known not in tuple(Status):
            raise ValidationError(f"is unknown; use {', '.join(Status)}")
        return Status(known)


class _Cursor(fields.Field[int]):
    """The row that a cursor of this kind of list refers to."""

    def __init__(self, kind: str) -> None:
        metadata = {"type": "string", "description": "`next` of the previous page."}
        super().__init__(load_default=None, attribute="before", metadata=metadata)
        self._kind = kind

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        return cursors.decode(self._kind, value)


class _Moment(fields.Field[int]):
    """A time as RFC 3339, or as a duration before now, such as `2d`."""

    def __init__(self) -> None:
        text = "A time as RFC 3339, or as a duration before now, such as `2d`."
        super().__init__(metadata={"type": "string", "description": text})

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        try:
            return durations.moment(str(value), now_ms())
        except ValueError as error:
            raise ValidationError(str(error)) from None


class _PageQuery(Schema):
    """The query parameters that all lists have."""

    limit = fields.Integer(load_default=DEFAULT_ROWS, validate=validate.Range(1, MAX_ROWS))


class TaskQuery(_PageQuery):
    cursor = _Cursor("tasks")
    provider = fields.String(validate=validate.OneOf(sorted(providers.PROVIDERS)))
    status = _Status()
    reference = fields.String(validate=validate.Length(1, 1000))
    account = fields.String(validate=validate.Length(1, 64))


class DeliveryQuery(_PageQuery):
    cursor = _Cursor("deliveries")
    task = fields.String(validate=validate.Length(1, 64), attribute="task_id")
    hook = fields.String(validate=validate.Length(1, 200))
    state = fields.Enum(State, by_value=True)


class ReplayQuery(Schema):
    accept = fields.Boolean(load_default=False)  # record a mismatch


class Filter(Schema):
    """Selects deliveries that were delivered or are dead."""

    class Meta:
        unknown = RAISE  # marshmallow's default, repeated for the OpenAPI document

    state = fields.Enum(State, by_value=True, load_default=State.DEAD)
    hook = fields.String(validate=validate.Length(1, 200))
    provider = fields.String(validate=validate.OneOf(sorted(providers.PROVIDERS)))
    status = fields.String(validate=validate.Length(1, 40))
    task = fields.String(validate=validate.Length(1, 64), attribute="task_id")
    since = _Moment()
    until = _Moment()
    dry_run = fields.Boolean(load_default=False, truthy={True}, falsy={False})


def blueprint(ingest: Ingest) -> Blueprint:
    """Return the routes below /api that require only the record."""
    routes = Blueprint("api", __name__)
    store, hooks = ingest.store, ingest.hooks
    routes.register_error_handler(ValidationError, problems.not_valid)

    @routes.get("/api/tasks")
    @described(RouteSpec(answers={200: schemas.TasksDocument}, query=TaskQuery, refuses=(422,)))
    def tasks() -> Response:
        """A page of tasks, newest first."""
        page = store.lists.page_of_tasks(**_loaded(TaskQuery()))
        following = cursors.encode("tasks", page.next)
        return jsonify(tasks=[task_json(task) for task in page.rows], next=following)

    @routes.get("/api/tasks/<task_id>")
    @described(RouteSpec(answers={200: schemas.HistoryDocument}, refuses=(404,)))
    def task(task_id: str) -> Response:
        """One task with everything on record about it."""
        return jsonify(records.history_json(store.queries.history(task_id), hooks))

    @routes.get("/api/deliveries")
    @described(
        RouteSpec(answers={200: schemas.DeliveriesDocument}, query=DeliveryQuery, refuses=(422,))
    )
    def deliveries() -> Response:
        """A page of deliveries, newest first."""
        page = store.lists.page_of_deliveries(**_loaded(DeliveryQuery()))
        following = cursors.encode("deliveries", page.next)
        rows = [records.delivery_json(delivery, hooks) for delivery in page.rows]
        return jsonify(deliveries=rows, next=following)

    @routes.post(f"/api/deliveries/<{ROW}:delivery_id>/redeliver")
    @described(RouteSpec(answers={202: schemas.DeliveryDocument}, refuses=(404, 409)))
    def redeliver(delivery_id: int) -> tuple[Response, int] | Response:
        """Make a delivery due again that was delivered or is dead."""
        delivery = store.queries.delivery(delivery_id)
        if delivery.state not in (State.DELIVERED, State.DEAD):
            detail = f"delivery {delivery_id} has not ended: it is {delivery.state}"
            return problems.problem(409, detail)
        store.outbox.redeliver(delivery_id, now_ms())
        return jsonify(records.delivery_json(store.queries.delivery(delivery_id), hooks)), 202

    @routes.post(f"/api/callbacks/<{ROW}:callback_id>/replay")
    @described(
        RouteSpec(
            answers={200: schemas.OutcomeDocument}, query=ReplayQuery, refuses=(404, 409, 422)
        )
    )
    def replay(callback_id: int) -> Response:
        """Parse and record a stored callback again, and optionally accept a mismatch."""
        accept = _loaded(ReplayQuery(unknown=EXCLUDE))["accept"]
        try:
            return jsonify(outcome=ingest.replay(callback_id, accept=accept))
        except NotAMismatch as refusal:
            return problems.problem(409, str(refusal))
        except RequestRefused as refusal:
            detail = f"callback {callback_id} still cannot be interpreted: {refusal}"
            return problems.problem(422, detail)

    return routes


def redelivery(ingest: Ingest) -> Blueprint:
    """Return the route that makes many deliveries due again."""
    routes = Blueprint("redelivery", __name__)
    routes.register_error_handler(ValidationError, problems.not_valid)

    @routes.post("/api/deliveries/redeliver")
    @described(
        RouteSpec(
            answers={200: schemas.RedeliveryDocument, 202: schemas.RedeliveryDocument},
            body=(Filter,),
            refuses=(413, 422),
        )
    )
    def many() -> tuple[Response, int] | Response:
        """Make deliveries due again, and create missing ones for hooks that were added later.

        If `done` is false in the response, there are more: repeat the request.
        """
        values: dict[str, Any] = Filter().load(_document())
        dry_run = values.pop("dry_run")
        selection, now = DeliverySelection(**values), now_ms()
        if selection.state not in (State.DEAD, State.DELIVERED):
            raise ValidationError({"state": ["use dead or delivered"]})
        redelivered, no_more_due = first_steps(
            repair.redeliver(ingest.store, selection, now, dry_run=dry_run)
        )
        created, no_more_missing = first_steps(
            repair.catch_up(ingest.store, ingest.subscriptions, selection, now, dry_run=dry_run)
        )
        done = no_more_due and no_more_missing
        document = {"redelivered": redelivered, "created": created, "done": done}
        return jsonify(**document, dry_run=dry_run), 200 if dry_run else 202

    return routes


def _loaded(schema: Schema) -> dict[str, Any]:
    """Return the query parameters according to the schema.

    Raises ValidationError, which names each invalid or repeated parameter.
    """
    values = request.args.to_dict(flat=False)
    if repeated := {name: ["is repeated"] for name, texts in values.items() if len(texts) > 1}:
        raise ValidationError(repeated)
    query: dict[str, Any] = schema.load(request.args.to_dict())
    return query


def _document() -> dict[str, Any]:
    """Return the JSON object in the body. Raises ValidationError.

    A missing or malformed body must not select all deliveries.
    """
    document = request.get_json(silent=True)
    if not isinstance(document, dict):
        raise ValidationError({"body": ['send a JSON object, such as {"hook": "mail"}']})
    return document


def first_steps(steps: Iterator[RepairStep]) -> tuple[int, bool]:
    """Make at most STEPS steps.

    Return the number of changed deliveries, and whether all are done.
    """
    done = list(islice(steps, STEPS))
    return sum(step.changed for step in done), not done or done[-1].next is None
