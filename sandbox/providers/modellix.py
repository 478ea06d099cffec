"""Modellix's API: create on each spelling of its path, query, models; no callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from sandbox.components import components
from sandbox.engine import CreateRequest, Status, Task, TooManyRunningError
from sandbox.providers import input_pictures, request_fields
from sandbox.providers.create_faults import accepted
from sandbox.providers.request_fields import ApiError
from sandbox.scenarios.scenario import FLAT_RESOURCES, PLAIN_URLS, SYNONYMS, SYNONYMS_FAILED

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException

NAME = "modellix"
API_KEY = "sandbox-modellix-key"  # public on purpose, like Kling's
MODELS = ("kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5")
PICTURES = ("human_image", "cloth_image")
BALANCE = 100.0  # in US dollars; nothing is ever deducted
CATEGORIES = {
    400: "Invalid parameters",
    401: "Unauthorized",
    404: "Not found",
    429: "Rate limit exceeded",
}

SPELLING = {
    Status.SUBMITTED: "pending",
    Status.PROCESSING: "processing",
    Status.SUCCEEDED: "success",
    Status.FAILED: "failed",
}
# Forms that the official client accepts as well.
OTHER_SPELLING = {**SPELLING, Status.SUCCEEDED: "completed", Status.FAILED: "canceled"}

routes = Blueprint(NAME, __name__)


@routes.before_request
def guard() -> None:
    if not _has_valid_key() and request.endpoint != f"{NAME}.{validate_key.__name__}":
        raise ApiError(401, "the API key is missing or wrong")
    if not components().modellix_limit.take():
        raise ApiError(429, f"at most {components().modellix_limit.most} requests a minute")


@routes.after_request
def add_rate_limit(response: Response) -> Response:
    response.headers.update(components().modellix_limit.headers())
    return response


@routes.errorhandler(ApiError)
def refuse(error: ApiError) -> Response:
    return _refusal(error.code, CATEGORIES[error.code], error.message)


# The form in the path, and that of the command line 0.0.5; of newer pages, and the command line
# 0.0.6; of the command line 0.0.7. It is not known which of them the real server accepts.
@routes.post("/api/v1/image-to-image/kling/<model>/async")
@routes.post("/api/v1/kling/<model>/async")
@routes.post("/api/v1/kling/<model>")
def create(model: str) -> Response:
    if model not in MODELS:
        raise ApiError(404, f"model '{model}' does not exist")
    try:
        task = accepted(_order(model, request.get_json(silent=True)))
    except TooManyRunningError:
        raise ApiError(429, "too many running tasks") from None
    return _success(created(task, components().url))


@routes.get("/api/v1/tasks/<task_id>")
def query(task_id: str) -> Response:
    task = components().engine.find(NAME, task_id)
    if task is None:
        raise ApiError(404, f"task '{task_id}' does not exist")
    return _success(queried(task))


# The next four are called by the official command line 0.0.7, which requires these members; nothing
# else is known of their responses.
@routes.get("/api/v1/apikey/validate")
def validate_key() -> Response:
    return _success({"is_valid": _has_valid_key()})


@routes.get("/api/v1/team/balance")
def balance() -> Response:
    return _success({"balance": BALANCE})


@routes.get("/api/v1/models")
def list_models() -> Response:
    models = [_described(model) for model in MODELS]
    return jsonify(code=0, message="success", data={"models": models}, models=models)


@routes.get("/api/v1/models/kling/<model>")
def describe_model(model: str) -> Response:
    if model not in MODELS:
        raise ApiError(404, f"model '{model}' does not exist")
    return _success(_described(model))


def before_the_api(error: HTTPException) -> Response:
    """Return the response for a URL that is no route of the API."""
    return _refusal(error.code or 404, error.name, f"{request.method} {request.path}")


def _has_valid_key() -> bool:
    return request.headers.get("Authorization") == f"Bearer {API_KEY}"


def _described(model: str) -> dict[str, str]:
    return {
        "slug": f"kling/{model}",
        "type": "image-to-image",
        "docs_url": f"https://docs.modellix.ai/kling/{model}",
        "description": "Virtual try-on",
    }


def _order(model: str, body: Any) -> CreateRequest:
    if not isinstance(body, dict):
        raise ApiError(400, "the request body must be a JSON object")
    for field in sorted(body.keys() - set(PICTURES)):
        raise ApiError(400, f"parameter '{field}' is unknown")
    try:
        source = input_pictures.source()
        human, cloth = (request_fields.picture(body, field, source) for field in PICTURES)
    except request_fields.FieldError as wrong:
        raise ApiError(400, f"parameter '{wrong.field}' {wrong.fault}") from None
    return CreateRequest(provider=NAME, model=model, human=human, cloth=cloth)


def _success(data: dict[str, Any]) -> Response:
    return jsonify(code=0, message="success", data=data)


def _refusal(code: int, category: str, detail: str) -> Response:
    answer = jsonify(code=code, message=f"{category}: {detail}")
    answer.status_code = code
    return answer


def created(task: Task, url: str) -> dict[str, Any]:
    """Return the task as the response to its create request; `url` is that of the sandbox."""
    return {
        "status": SPELLING[Status.SUBMITTED],
        "task_id": task.task_id,
        "model_id": task.model,
        "get_result": {"method": "GET", "url": f"{url}/api/v1/tasks/{task.task_id}"},
    }


def queried(task: Task) -> dict[str, Any]:
    """Return the task as the response to a query, in the form that its scenario names."""
    has_synonym = task.scenario in (SYNONYMS, SYNONYMS_FAILED)
    spelling = OTHER_SPELLING if has_synonym else SPELLING
    data: dict[str, Any] = {
        "status": spelling[task.status],
        "task_id": task.task_id,
        "model_id": task.model,
    }
    if task.status.is_final:
        data["duration"] = task.updated_at - task.created_at
    if task.status is Status.FAILED:
        data["error"] = task.reason  # the place of the reason is not documented
    return {**data, **_result(task)}


def _result(task: Task) -> dict[str, Any]:
    if task.result_url is None or task.result_size is None:
        return {}
    width, height = task.result_size
    resource = {
        "url": task.result_url,
        "type": "image",
        "width": width,
        "height": height,
        "format": "png",
        "role": "primary",
    }
    if task.scenario == FLAT_RESOURCES:
        return {"resources": [resource]}
    if task.scenario == PLAIN_URLS:
        return {"result": {"resources": [task.result_url]}}
    return {"result": {"resources": [resource]}}
