"""Modellix's API: create on both spellings of its path, query, rate limit; no callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from sandbox.components import components
from sandbox.engine import CreateRequest, TooManyRunningError
from sandbox.providers import modellix_bodies, request_fields
from sandbox.providers.create_faults import accepted

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException

NAME = "modellix"
API_KEY = "sandbox-modellix-key"  # public on purpose, like Kling's
MODELS = ("kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5")
PICTURES = ("human_image", "cloth_image")
CATEGORIES = {
    400: "Invalid parameters",
    401: "Unauthorized",
    404: "Not found",
    429: "Rate limit exceeded",
}

routes = Blueprint(NAME, __name__)


class ModellixError(Exception):
    """An error response, whose code is the HTTP status."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@routes.before_request
def guard() -> None:
    if request.headers.get("Authorization") != f"Bearer {API_KEY}":
        raise ModellixError(401, "the API key is missing or wrong")
    if not components().modellix_limit.take():
        raise ModellixError(429, f"at most {components().modellix_limit.most} requests a minute")


@routes.after_request
def tell_the_limit(response: Response) -> Response:
    response.headers.update(components().modellix_limit.headers())
    return response


@routes.errorhandler(ModellixError)
def refuse(error: ModellixError) -> Response:
    return _refusal(error.code, CATEGORIES[error.code], error.detail)


@routes.post("/api/v1/image-to-image/kling/<model>/async")
@routes.post("/api/v1/kling/<model>/async")  # the spelling of newer pages
def create(model: str) -> Response:
    if model not in MODELS:
        raise ModellixError(404, f"model '{model}' does not exist")
    try:
        task = accepted(_order(model, request.get_json(silent=True)))
    except TooManyRunningError:
        raise ModellixError(429, "too many running tasks") from None
    return _success(modellix_bodies.created(task, components().url))


@routes.get("/api/v1/tasks/<task_id>")
def query(task_id: str) -> Response:
    task = components().engine.find(NAME, task_id)
    if task is None:
        raise ModellixError(404, f"task '{task_id}' does not exist")
    return _success(modellix_bodies.queried(task))


def before_the_api(error: HTTPException) -> Response:
    """Return the response for a URL that is no route of the API."""
    return _refusal(error.code or 404, error.name, f"{request.method} {request.path}")


def _order(model: str, body: Any) -> CreateRequest:
    if not isinstance(body, dict):
        raise ModellixError(400, "the request body must be a JSON object")
    for field in sorted(body.keys() - set(PICTURES)):
        raise ModellixError(400, f"parameter '{field}' is unknown")
    try:
        human, cloth = (request_fields.picture(body, field, components().url) for field in PICTURES)
    except request_fields.FieldError as wrong:
        raise ModellixError(400, f"parameter '{wrong.field}' {wrong.fault}") from None
    return CreateRequest(provider=NAME, model=model, human=human, cloth=cloth)


def _success(data: dict[str, Any]) -> Response:
    return jsonify(code=0, message="success", data=data)


def _refusal(code: int, category: str, detail: str) -> Response:
    answer = jsonify(code=code, message=f"{category}: {detail}")
    answer.status_code = code
    return answer
