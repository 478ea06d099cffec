"""The HTTP API for tasks, deliveries and stored callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, jsonify, request
from marshmallow import RAISE, Schema, ValidationError, fields, post_load, validate
from werkzeug.wrappers import Response as WerkzeugResponse

from receiver import providers
from receiver.clock import now_ms
from receiver.config import durations
from receiver.deliveries import GIVEN_UP, State
from receiver.errors import NotAMismatch, NotFound, RequestRefused
from receiver.ingest import Ingest
from receiver.maintenance import repair
from receiver.serializers import records, schemas
from receiver.serializers.outputs import task_documents
from receiver.serializers.route_spec import RouteSpec, described
from receiver.stores.sql.repair import DeliverySelection, RepairStep
from receiver.tasks import Status
from receiver.web import cursors, problems, stored_files
from receiver.web.live import waits
from receiver.web.live.feed import EventFeed

STEPS = 40  # of 500 deliveries in one request; for more of them, clients repeat it
MAX_ROWS, DEFAULT_ROWS = 200, 50  # rows of one page
ANY_TYPE = "/".join("**")  # of content; written in one piece, it would begin a comment in SQL
OWN_STATUSES = (*Status, GIVEN_UP)
REPAIRABLE = (State.DEAD.value, State.DELIVERED.value)  # the states that `redeliver` accepts
ROW = "int(max=9223372036854775807)"  # the largest row key of a database


class StatusField(fields.Field[str]):
    """A status in our spelling or that of a provider, or `given_up`."""

    def __init__(self) -> None:
        spellings = {word for one in providers.PROVIDERS.values() for word in one.statuses}
        known = [*OWN_STATUSES, *sorted(spellings - set(OWN_STATUSES))]
        text = "In our spelling or in that of a provider; `given_up`: open tasks, given up on."
        super().__init__(metadata={"type": "string", "enum": known, "description": text})

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        known = value if value in OWN_STATUSES else providers.status_for(value)
        if known is None:
            raise ValidationError(f"is unknown; use {', '.join(OWN_STATUSES)}")
        return str(known)


class _Cursor(fields.Field[int]):
    """The row that a cursor of this kind of list refers to."""

    def __init__(self, kind: str) -> None:
        text = "`next` of the previous page."
        metadata = {"type": "string", "pattern": cursors.pattern(kind), "description": text}
        super().__init__(load_default=None, attribute="before", metadata=metadata)
        self._kind = kind

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        return cursors.decode(self._kind, value)


class _Moment(fields.Field[int]):
    """A time as RFC 3339, or as a duration before now, such as `2d`."""

    def __init__(self) -> None:
        text = "A time as RFC 3339, or as a duration before now, such as `2d`."
        kinds = [{"format": "date-time"}, {"pattern": "^[1-9][0-9]{0,2}[smhdw]$"}]
        super().__init__(metadata={"type": "string", "anyOf": kinds, "description": text})

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
    status = StatusField()
    reference = fields.String(validate=validate.Length(1, 1000))
    account = fields.String(validate=validate.Length(1, 64))
    provider_task_id = fields.String(validate=validate.Length(1, 1000))

    @post_load
    def selection(self, query: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Return the arguments of `Lists.page_of_tasks`."""
        status = query.pop("status", None)
        if status == GIVEN_UP:
            return {**query, "given_up": True}
        return {**query, "status": None if status is None else Status(status)}


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

    state = fields.String(validate=validate.OneOf(REPAIRABLE), load_default=State.DEAD.value)
    hook = fields.String(validate=validate.Length(1, 200))
    provider = fields.String(validate=validate.OneOf(sorted(providers.PROVIDERS)))
    status = fields.String(validate=validate.Length(1, 40))
    task = fields.String(validate=validate.Length(1, 64), attribute="task_id")
    since = _Moment()
    until = _Moment()
    dry_run = fields.Boolean(load_default=False, truthy={True}, falsy={False})


def blueprint(ingest: Ingest, feed: EventFeed) -> Blueprint:
    """Return the routes below /api that require only the record."""
    routes = Blueprint("api", __name__)
    routes.register_error_handler(ValidationError, problems.not_valid)
    _serve_tasks(routes, ingest, feed)
    _serve_deliveries(routes, ingest)
    return routes


def _serve_tasks(routes: Blueprint, ingest: Ingest, feed: EventFeed) -> None:
    store, hooks = ingest.store, ingest.hooks

    @routes.get("/api/tasks")
    @described(
        RouteSpec(
            answers={200: schemas.TasksDocument},
            query=TaskQuery,
            refuses=(422,),
            example="status=failed&limit=50",
        )
    )
    def tasks() -> Response:
        """A page of tasks, newest first."""
        page = store.lists.page_of_tasks(**loaded(TaskQuery()))
        following = cursors.encode("tasks", page.next)
        return jsonify(tasks=task_documents(store, page.rows), next=following)

    @routes.get("/api/tasks/<task_id>")
    @described(
        RouteSpec(
            answers={200: schemas.HistoryDocument},
            query=waits.WaitQuery,
            headers=waits.PREFER,
            refuses=(404, 422),
        )
    )
    def task(task_id: str) -> Response:
        """One task with everything on record about it.

        With `wait`, the response is sent when the task ends, or after this number of seconds.
        """
        requested, preferred = loaded(waits.WaitQuery())["wait"], waits.preferred_seconds()
        seconds = requested or preferred
        try:
            is_open = bool(seconds) and not store.queries.task(task_id).status.is_terminal
            if is_open and not waits.wait_until_ended(feed, task_id, seconds):
                return Response()
            document = records.history_json(store.queries.history(task_id), hooks)
        except NotFound as error:
            search = f"GET /api/tasks?{urlencode({'reference': task_id})}"
            raise NotFound(f"{error}; if it is a reference, use {search}") from None
        return waits.mark_applied(jsonify(document), 0 if requested else preferred)

    @routes.get("/api/tasks/<task_id>/files/<path:index>")
    @described(RouteSpec(answers={200: ANY_TYPE, 206: ANY_TYPE}, refuses=(404, 416)))
    def file(task_id: str, index: str) -> WerkzeugResponse:
        """The downloaded file of an output; `href` in the outputs of a task refers to it.

        Only files in a folder of the web process's machine are served. A file in a bucket has its
        address in `file`.
        """
        pictures = store.queries.pictures([task_id]).get(task_id, [])
        files = [picture.file for picture in pictures if picture.file.media_index == index]
        if not files:
            raise NotFound(f"task {task_id} has no file {index}; see GET /api/tasks/{task_id}")
        return stored_files.serve(files[0])


def _serve_deliveries(routes: Blueprint, ingest: Ingest) -> None:
    store, hooks = ingest.store, ingest.hooks

    @routes.get("/api/deliveries")
    @described(
        RouteSpec(
            answers={200: schemas.DeliveriesDocument},
            query=DeliveryQuery,
            refuses=(422,),
            example="state=dead",
        )
    )
    def deliveries() -> Response:
        """A page of deliveries, newest first."""
        page = store.lists.page_of_deliveries(**loaded(DeliveryQuery()))
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
        store.outbox.redeliver(delivery_id, now_ms(), ingest.subscriptions)
        return jsonify(records.delivery_json(store.queries.delivery(delivery_id), hooks)), 202

    @routes.post(f"/api/callbacks/<{ROW}:callback_id>/replay")
    @described(
        RouteSpec(
            answers={200: schemas.OutcomeDocument}, query=ReplayQuery, refuses=(404, 409, 422)
        )
    )
    def replay(callback_id: int) -> Response:
        """Parse and record a stored callback again, and optionally accept a mismatch."""
        accept = loaded(ReplayQuery())["accept"]
        try:
            return jsonify(outcome=ingest.replay(callback_id, accept=accept))
        except NotAMismatch as refusal:
            return problems.problem(409, str(refusal))
        except RequestRefused as refusal:
            detail = f"callback {callback_id} still cannot be interpreted: {refusal}"
            return problems.problem(409, detail)


def redelivery(ingest: Ingest) -> Blueprint:
    """Return the route that makes many deliveries due again."""
    routes = Blueprint("redelivery", __name__)
    routes.register_error_handler(ValidationError, problems.not_valid)

    @routes.post("/api/deliveries/redeliver")
    @described(
        RouteSpec(
            answers={200: schemas.RedeliveryDocument, 202: schemas.RedeliveryDocument},
            body=(Filter,),
            example={"hook": "mail", "since": "2d", "dry_run": True},
            refuses=(413, 422),
        )
    )
    def many() -> tuple[Response, int] | Response:
        """Make deliveries due again, and create missing ones for hooks that were added later.

        If `done` is false in the response, there are more: repeat the request.
        """
        values: dict[str, Any] = Filter().load(_document())
        dry_run = values.pop("dry_run")
        values["state"] = State(values["state"])
        selection, now = DeliverySelection(**values), now_ms()
        redelivered, no_more_due = first_steps(
            repair.redeliver(ingest.store, ingest.subscriptions, selection, now, dry_run=dry_run)
        )
        created, no_more_missing = first_steps(
            repair.catch_up(ingest.store, ingest.subscriptions, selection, now, dry_run=dry_run)
        )
        done = no_more_due and no_more_missing
        document = {"redelivered": redelivered, "created": created, "done": done}
        return jsonify(**document, dry_run=dry_run), 200 if dry_run else 202

    return routes


def loaded(schema: Schema) -> dict[str, Any]:
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
