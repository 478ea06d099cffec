"""Kling's APIs of virtual try-on and of image generation: create, query by either id, list."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from sandbox.components import components
from sandbox.engine import CreateRequest, ExternalIdTakenError, TooManyRunningError
from sandbox.providers import input_pictures, kling_auth, kling_legacy, request_fields
from sandbox.providers.create_faults import accepted
from sandbox.providers.kling_envelope import refusal, success
from sandbox.providers.request_fields import ApiError

NAME = "kling"

TRY_ON, GENERATION = "kolors-virtual-try-on", "generations"
MODELS = {  # by API; the first one is the default
    TRY_ON: ("kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5"),
    GENERATION: ("kling-v1", "kling-v1-5", "kling-v2", "kling-v2-new", "kling-v2-1"),
}
PATH = f'/v1/images/<any("{TRY_ON}", "{GENERATION}"):api>'
LONGEST_PROMPT = 2_500  # characters
MOST_OUTPUTS = 9

routes = Blueprint(NAME, __name__)
routes.register_error_handler(ApiError, refusal)


@routes.before_request
def authenticate() -> None:
    kling_auth.check(request.headers.get("Authorization"))


@routes.post(PATH)
def create(api: str) -> Response:
    if not request.is_json:
        raise ApiError(1200, "Content-Type must be application/json")
    order = _create_request(api, request.get_json(silent=True))
    try:
        task = accepted(order)
    except ExternalIdTakenError as fault:
        raise ApiError(1201, f"external_task_id '{fault}' already exists") from None
    except TooManyRunningError:
        raise ApiError(1303, "parallel task over resource pack limit") from None
    return success(kling_legacy.created(task))


@routes.get(f"{PATH}/<key>")
# Kling's own client sends two slashes and does not follow redirects
@routes.get(f"{PATH}//<key>")
def query(api: str, key: str) -> Response:
    task = components().engine.find(NAME, key)
    if task is None or task.model not in MODELS[api]:
        raise ApiError(1203, f"task '{key}' does not exist")
    return success(kling_legacy.queried(task))


@routes.get(PATH)
def list_tasks(api: str) -> Response:
    page = _number("pageNum", default=1, most=1000)
    size = _number("pageSize", default=30, most=500)
    tasks = [task for task in components().engine.tasks(NAME) if task.model in MODELS[api]]
    return success([kling_legacy.queried(task) for task in tasks[(page - 1) * size : page * size]])


@routes.route(PATH, methods=["PUT", "PATCH", "DELETE"])
@routes.route(f"{PATH}/<key>", methods=["POST", "PUT", "PATCH", "DELETE"])
def no_such_method(**_: str) -> Response:
    raise ApiError(1202, f"method {request.method} is invalid here")


def _create_request(api: str, body: object) -> CreateRequest:
    """Return the request in a decoded JSON body. Raises ApiError 1200, 1201 or 1203."""
    if not isinstance(body, dict):
        raise ApiError(1200, "the request body must be a JSON object")
    try:
        model = request_fields.text(body, "model_name") or MODELS[api][0]
        if model not in MODELS[api]:
            raise ApiError(1203, f"model_name value '{model}' does not exist")
        callback_url = request_fields.web_address(body, "callback_url")
        external_task_id = request_fields.text(body, "external_task_id")
        human, cloth, outputs = _try_on(body) if api == TRY_ON else _generation(body)
    except request_fields.FieldError as wrong:
        raise ApiError(1201, str(wrong)) from None
    return CreateRequest(NAME, model, human, cloth, callback_url, external_task_id, outputs)


def _try_on(body: dict[str, Any]) -> tuple[bytes, bytes, int]:
    source = input_pictures.source()
    human = request_fields.picture(body, "human_image", source)
    return human, request_fields.picture(body, "cloth_image", source), 1


def _generation(body: dict[str, Any]) -> tuple[bytes, bytes, int]:
    """Return the pictures to combine, because the sandbox draws nothing from a prompt.

    The person is the reference `image`, if there is one; otherwise both are the sandbox's samples.
    """
    prompt = request_fields.text(body, "prompt")
    if prompt is None:
        raise request_fields.FieldError("prompt", "is required")
    if len(prompt) > LONGEST_PROMPT:
        raise request_fields.FieldError("prompt", f"is longer than {LONGEST_PROMPT} characters")
    outputs = body.get("n", 1)
    if type(outputs) is not int or not 1 <= outputs <= MOST_OUTPUTS:
        raise request_fields.FieldError("n", f"must be a number from 1 to {MOST_OUTPUTS}")
    has_reference = request_fields.text(body, "image") is not None
    human = (
        request_fields.picture(body, "image", input_pictures.source())
        if has_reference
        else input_pictures.sample(input_pictures.PERSON)
    )
    return human, input_pictures.sample(input_pictures.GARMENT), outputs


def _number(name: str, *, default: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most and len(text) <= 9:
        return int(text)
    raise ApiError(1201, f"{name} value '{text}' is invalid: it must be 1 to {most}")
