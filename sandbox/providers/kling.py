"""Kling's virtual try-on API: create, query by either id, list."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from sandbox.components import components
from sandbox.engine import ExternalIdTakenError, TooManyRunningError
from sandbox.providers import kling_auth, kling_legacy, kling_requests
from sandbox.providers.create_faults import accepted
from sandbox.providers.kling_envelope import KlingError, framework_error, refusal, success

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException

NAME = "kling"
TRY_ON = "/v1/images/kolors-virtual-try-on"

routes = Blueprint(NAME, __name__)


@routes.before_request
def authenticate() -> None:
    kling_auth.check(request.headers.get("Authorization"))


@routes.errorhandler(KlingError)
def refuse(error: KlingError) -> Response:
    return refusal(error)


@routes.post(TRY_ON)
def create() -> Response:
    if not request.is_json:
        raise KlingError(1200, "Content-Type must be application/json")
    order = kling_requests.read(request.get_json(silent=True), components().url)
    try:
        task = accepted(order)
    except ExternalIdTakenError as fault:
        raise KlingError(1201, f"external_task_id '{fault}' already exists") from None
    except TooManyRunningError:
        raise KlingError(1303, "parallel task over resource pack limit") from None
    return success(kling_legacy.created(task))


@routes.get(f"{TRY_ON}/<key>")
# Kling's own client sends two slashes and does not follow redirects
@routes.get(f"{TRY_ON}//<key>")
def query(key: str) -> Response:
    task = components().engine.find(NAME, key)
    if task is None:
        raise KlingError(1203, f"task '{key}' does not exist")
    return success(kling_legacy.queried(task))


@routes.get(TRY_ON)
def list_tasks() -> Response:
    page = _number("pageNum", default=1, most=1000)
    size = _number("pageSize", default=30, most=500)
    tasks = components().engine.tasks(NAME)[(page - 1) * size : page * size]
    return success([kling_legacy.queried(task) for task in tasks])


@routes.route(TRY_ON, methods=["PUT", "PATCH", "DELETE"])
@routes.route(f"{TRY_ON}/<key>", methods=["POST", "PUT", "PATCH", "DELETE"])
def no_such_method(key: str = "") -> Response:  # noqa: ARG001 - the route's, not needed
    raise KlingError(1202, f"method {request.method} is invalid here")


def before_the_api(error: HTTPException) -> Response:
    """Return the response of Kling's framework for a URL that is no route of the API."""
    status = HTTPStatus(error.code or HTTPStatus.NOT_FOUND)
    return framework_error(status.value, status.phrase, request.path)


def _number(name: str, *, default: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most and len(text) <= 9:
        return int(text)
    raise KlingError(1201, f"{name} value '{text}' is invalid: it must be 1 to {most}")
