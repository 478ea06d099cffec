"""The HTTP API for redelivering many deliveries. A request changes a limited number of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from flask import Blueprint, Response, jsonify, request
from marshmallow import RAISE, Schema, ValidationError, fields, validate

from receiver import providers
from receiver.clock import now_ms
from receiver.config import durations
from receiver.deliveries import State
from receiver.ingest import Ingest
from receiver.maintenance import repair
from receiver.serializers.route_spec import RouteSpec, described
from receiver.serializers.schemas import RedeliveryDocument
from receiver.stores.sql.repair import DeliverySelection, RepairStep
from receiver.web import problems

STEPS = 40  # of 500 deliveries; for more of them, clients repeat the request


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


class Filter(Schema):
    """Selects deliveries that were delivered or are dead."""

    class Meta:
        unknown = RAISE  # marshmallow's default; the OpenAPI document states it only if it is here

    state = fields.Enum(State, by_value=True, load_default=State.DEAD)
    hook = fields.String(validate=validate.Length(1, 200))
    provider = fields.String(validate=validate.OneOf(sorted(providers.PROVIDERS)))
    status = fields.String(validate=validate.Length(1, 40))
    task = fields.String(validate=validate.Length(1, 64), attribute="task_id")
    since = _Moment()
    until = _Moment()
    dry_run = fields.Boolean(load_default=False, truthy={True}, falsy={False})


def blueprint(ingest: Ingest) -> Blueprint:
    """Return the route that makes many deliveries due again."""
    routes = Blueprint("redelivery", __name__)
    routes.register_error_handler(ValidationError, problems.not_valid)

    @routes.post("/api/deliveries/redeliver")
    @described(
        RouteSpec(
            answers={200: RedeliveryDocument, 202: RedeliveryDocument},
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


def _document() -> dict[str, Any]:
    """Return the JSON object in the body. Raises ValidationError.

    A missing or malformed body must not select all deliveries.
    """
    document = request.get_json(silent=True)
    if not isinstance(document, dict):
        raise ValidationError({"body": ['send a JSON object, such as {"hook": "mail"}']})
    return document


def first_steps(steps: Iterator[RepairStep]) -> tuple[int, bool]:
    """Make STEPS steps at most. Return how many deliveries they changed, and if that was all."""
    done = list(islice(steps, STEPS))
    return sum(step.changed for step in done), not done or done[-1].next is None
