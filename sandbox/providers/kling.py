"""Kling's virtual try-on API: create, query by either id, list."""

from __future__ import annotations

from flask import Blueprint, Response, request

from sandbox.components import components
from sandbox.engine import CreateRequest, ExternalIdTakenError, TooManyRunningError
from sandbox.providers import kling_auth, kling_legacy, request_fields
from sandbox.providers.create_faults import accepted
from sandbox.providers.kling_envelope import refusal, success
from sandbox.providers.request_fields import ApiError

NAME = "kling"
TRY_ON = "/v1/images/kolors-virtual-try-on"

MODELS = ("kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5")

routes = Blueprint(NAME, __name__)
routes.register_error_handler(ApiError, refusal)


@routes.before_request
def authenticate() -> None:
    kling_auth.check(request.headers.get("Authorization"))


@routes.post(TRY_ON)
def create() -> Response:
    if not request.is_json:
        raise ApiError(1200, "Content-Type must be application/json")
    order = _create_request(request.get_json(silent=True))
    try:
        task = accepted(order)
    except ExternalIdTakenError as fault:
        raise ApiError(1201, f"external_task_id '{fault}' already exists") from None
    except TooManyRunningError:
        raise ApiError(1303, "parallel task over resource pack limit") from None
    return success(kling_legacy.created(task))


@routes.get(f"{TRY_ON}/<key>")
# Kling's own client sends two slashes and does not follow redirects
@routes.get(f"{TRY_ON}//<key>")
def query(key: str) -> Response:
    task = components().engine.find(NAME, key)
    if task is None:
        raise ApiError(1203, f"task '{key}' does not exist")
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
    raise ApiError(1202, f"method {request.method} is invalid here")


def _create_request(body: object) -> CreateRequest:
    """Return the request in a decoded JSON body. Raises ApiError 1200, 1201 or 1203."""
    if not isinstance(body, dict):
        raise ApiError(1200, "the request body must be a JSON object")
    try:
        model = request_fields.text(body, "model_name") or MODELS[0]
        if model not in MODELS:
            raise ApiError(1203, f"model_name value '{model}' does not exist")
        return CreateRequest(
            provider=NAME,
            model=model,
            callback_url=request_fields.web_address(body, "callback_url"),
            external_task_id=request_fields.text(body, "external_task_id"),
            human=request_fields.picture(body, "human_image", components().url),
            cloth=request_fields.picture(body, "cloth_image", components().url),
        )
    except request_fields.FieldError as wrong:
        raise ApiError(1201, str(wrong)) from None


def _number(name: str, *, default: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most and len(text) <= 9:
        return int(text)
    raise ApiError(1201, f"{name} value '{text}' is invalid: it must be 1 to {most}")
