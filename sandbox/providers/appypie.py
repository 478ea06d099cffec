"""Appy Pie's gateway: Kling's envelope and callbacks, with different errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from sandbox.components import components
from sandbox.engine import CreateRequest, TooManyRunningError
from sandbox.providers import input_pictures, kling_legacy, request_fields
from sandbox.providers.create_faults import accepted
from sandbox.providers.kling_envelope import success
from sandbox.providers.request_fields import ApiError

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException

    from sandbox.engine import Task
    from sandbox.outgoing_callbacks import OutgoingCallback

NAME = "appypie"
SUBSCRIPTION_KEY = "sandbox-appypie-key"  # public on purpose, like Kling's
KEY_HEADER = "Ocp-Apim-Subscription-Key"
PREFIXES = ("/kling-ai-", "/lumalabs-ai-")
MODEL = "kolors-virtual-try-on-v1"
# The table of the documentation calls the garment `image_tail`; its samples call it `cloth_image`.
GARMENTS = ("cloth_image", "image_tail")
KNOWN = ("human_image", *GARMENTS, "callback_url")

routes = Blueprint(NAME, __name__)


@routes.before_request
def guard() -> None:
    key = request.headers.get(KEY_HEADER)
    if not key:
        raise ApiError(401, "Access denied due to missing subscription key.")
    if key != SUBSCRIPTION_KEY:
        raise ApiError(403, "Access denied due to invalid subscription key.")


@routes.errorhandler(ApiError)
def refuse(error: ApiError) -> tuple[Response, int]:
    return jsonify(error=error.message), error.code


@routes.post("/kling-ai-vton/v1/getVirtualTryOnTask")
def create() -> Response:
    try:
        task = accepted(_order(_body()))
    except TooManyRunningError:
        raise ApiError(429, "Rate limit is exceeded. Try again later.") from None
    return success(kling_legacy.created(task))


@routes.post("/kling-ai-polling/v1/getVirtualTryOnStatus")
@routes.post("/lumalabs-ai-polling/v1/getStatus")  # documented as the base URL of polling
def status() -> Response:
    task_id = _body().get("task_id")
    if not isinstance(task_id, str) or not task_id:
        raise ApiError(400, "task_id is required.")
    task = components().engine.find(NAME, task_id)
    if task is None:  # without the envelope, as documented; the HTTP status is not documented
        return jsonify(task_status="failed", task_status_msg="task not found")
    return success(kling_legacy.queried(task))


def before_the_api(error: HTTPException) -> tuple[Response, int]:
    """Return the response for a URL that is no route of the gateway."""
    return jsonify(error=error.name), error.code or 404


class AppyPieCallbacks:
    """Kling's legacy callbacks, unsigned, as the gateway passes them on."""

    def callback(self, task: Task, url: str) -> OutgoingCallback:
        return kling_legacy.callback(task, url, external_task_id=None)


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise ApiError(400, "The request body must be a JSON object.")
    return body


def _order(body: dict[str, Any]) -> CreateRequest:
    # The handling of unknown keys is not documented; rejecting them reveals mistakes.
    for field in sorted(body.keys() - set(KNOWN)):
        raise ApiError(400, f"{field} is not a parameter.")
    garment = next((field for field in GARMENTS if body.get(field)), GARMENTS[0])
    try:
        return CreateRequest(
            provider=NAME,
            model=MODEL,
            human=request_fields.picture(body, "human_image", input_pictures.source()),
            cloth=request_fields.picture(body, garment, input_pictures.source()),
            callback_url=request_fields.web_address(body, "callback_url"),
        )
    except request_fields.FieldError as wrong:
        raise ApiError(400, f"{wrong}.") from None
