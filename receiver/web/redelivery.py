"""Redelivery by filter over HTTP, in steps that no request takes long for."""

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

STEPS = 40  # of 500 deliveries; whoever means more asks again


class _Moment(fields.Field[int]):
    """RFC 3339, or a duration back from now such as `2d`."""

    def __init__(self) -> None:
        said = {"type": "string", "description": "RFC 3339; or back from now, such as `2d`."}
        super().__init__(metadata=said)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        try:
            return durations.moment(str(value), now_ms())
        except ValueError as error:
            raise ValidationError(str(error)) from None


class Filter(Schema):
    """Which deliveries that ended are meant."""

    class Meta:
        unknown = RAISE

    state = fields.Enum(State, by_value=True, load_default=State.DEAD)
    hook = fields.String(validate=validate.Length(1, 200))
    provider = fields.String(validate=validate.OneOf(sorted(providers.PROVIDERS)))
    status = fields.String(validate=validate.Length(1, 40))
    task = fields.String(validate=validate.Length(1, 64), attribute="task_id")
    since = _Moment()
    until = _Moment()
    dry_run = fields.Boolean(load_default=False, truthy={True}, falsy={False})


def blueprint(ingest: Ingest) -> Blueprint:
    """The route that makes many deliveries due again."""
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
        """Make deliveries that ended due again; create those that a hook added later never had.

        Without `done` in the answer there are more: ask again.
        """
        given: dict[str, Any] = Filter().load(_document())
        dry_run = given.pop("dry_run")
        wanted, now = DeliverySelection(**given), now_ms()
        if wanted.state not in (State.DEAD, State.DELIVERED):
            raise ValidationError({"state": ["use dead or delivered"]})
        found = repair.redeliver(ingest.store, wanted, now, dry_run=dry_run)
        redelivered, all_found = _some(found)
        missing = repair.catch_up(ingest.store, ingest.subscriptions, wanted, now, dry_run=dry_run)
        created, all_created = _some(missing)
        done = all_found and all_created
        document = {"redelivered": redelivered, "created": created, "done": done}
        return jsonify(**document, dry_run=dry_run), 200 if dry_run else 202

    return routes


def _document() -> dict[str, Any]:
    """The body, which has to be there: what is broken must not mean everything."""
    document = request.get_json(silent=True)
    if not isinstance(document, dict):
        raise ValidationError({"body": ['send a JSON object, such as {"hook": "mail"}']})
    return document


def _some(steps: Iterator[RepairStep]) -> tuple[int, bool]:
    """What the first steps changed, and whether that is all."""
    taken = list(islice(steps, STEPS))
    return sum(step.changed for step in taken), not taken or taken[-1].next is None
