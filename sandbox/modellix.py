"""Speaks Modellix' API: create on both spellings of its path, query, limits; no callbacks."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from sandbox import inputs
from sandbox.engine import Order, Status, Task, TooManyRunningError
from sandbox.parts import parts

NAME = "modellix"
API_KEY = "sandbox-modellix-key"
MODELS = ("kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5")
SPELLING = {
    Status.SUBMITTED: "pending",
    Status.PROCESSING: "processing",
    Status.SUCCEEDED: "success",
    Status.FAILED: "failed",
}
CATEGORY = {
    400: "Invalid parameters",
    401: "Unauthorized",
    404: "Not found",
    429: "Rate limit exceeded",
}
A_MINUTE = 60.0

routes = Blueprint(NAME, __name__)


class ModellixError(Exception):
    """A refusal: its code is the HTTP status."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Limit:
    """So many requests in any minute; thread-safe."""

    def __init__(self, requests_a_minute: int) -> None:
        self.limit = requests_a_minute
        self._seen: deque[float] = deque()
        self._lock = threading.Lock()

    def take(self) -> tuple[bool, int, int]:
        """Count one: is it within the limit, how many are left, and until when (epoch s)."""
        now = time.time()
        with self._lock:
            while self._seen and self._seen[0] <= now - A_MINUTE:
                self._seen.popleft()
            is_within = len(self._seen) < self.limit
            if is_within:
                self._seen.append(now)
            reset_at = (self._seen[0] if self._seen else now) + A_MINUTE
            return is_within, self.limit - len(self._seen), int(reset_at) + 1


@routes.before_request
def guard() -> None:
    if request.headers.get("Authorization") != f"Bearer {API_KEY}":
        raise ModellixError(401, "the API key is missing or wrong")
    limit: Limit = current_app.extensions["modellix-limit"]
    is_within, remaining, reset_at = limit.take()
    request.environ["sandbox.limit"] = (limit.limit, remaining, reset_at)
    if not is_within:
        raise ModellixError(429, f"at most {limit.limit} requests a minute")


@routes.after_request
def tell_the_limit(response: Response) -> Response:
    known = request.environ.get("sandbox.limit")
    for name, value in zip(("Limit", "Remaining", "Reset"), known or (), strict=False):
        response.headers[f"X-RateLimit-{name}"] = str(value)
    return response


@routes.errorhandler(ModellixError)
def refuse(error: ModellixError) -> tuple[Response, int]:
    message = f"{CATEGORY[error.code]}: {error.detail}"
    return jsonify(code=error.code, message=message), error.code


@routes.post("/api/v1/image-to-image/kling/<model>/async")
@routes.post("/api/v1/kling/<model>/async")
def create(model: str) -> Response:
    if model not in MODELS:
        raise ModellixError(404, f"model '{model}' does not exist")
    try:
        task = parts().engine.submit(_order(model, request.get_json(silent=True)))
    except TooManyRunningError:
        raise ModellixError(429, "too many running tasks") from None
    data = {"status": "pending", "task_id": task.task_id, "model_id": model}
    where = {"method": "GET", "url": f"{parts().url}/api/v1/tasks/{task.task_id}"}
    return _success({**data, "get_result": where})


@routes.get("/api/v1/tasks/<task_id>")
def query(task_id: str) -> Response:
    task = parts().engine.find(NAME, task_id)
    if task is None:
        raise ModellixError(404, f"task '{task_id}' does not exist")
    return _success(_data(task))


def _order(model: str, body: Any) -> Order:
    if not isinstance(body, dict):
        raise ModellixError(400, "the request body must be a JSON object")
    for field in body.keys() - {"human_image", "cloth_image"}:
        raise ModellixError(400, f"parameter '{field}' is unknown")
    human, cloth = (_picture(body, field) for field in ("human_image", "cloth_image"))
    return Order(provider=NAME, model=model, human=human, cloth=cloth)


def _picture(body: dict[str, Any], field: str) -> bytes:
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise ModellixError(400, f"parameter '{field}' is required")
    try:
        return inputs.read(value, parts().url)
    except inputs.InputError as fault:
        raise ModellixError(400, f"parameter '{field}' {fault}") from None


def _success(data: dict[str, Any]) -> Response:
    return jsonify(code=0, message="success", data=data)


def _data(task: Task) -> dict[str, Any]:
    data: dict[str, Any] = {
        "status": SPELLING[task.status],
        "task_id": task.task_id,
        "model_id": task.model,
    }
    if task.status.is_final:
        data["duration"] = task.updated_at - task.created_at
    if task.status is Status.FAILED:
        data["error"] = task.reason
    if task.result_url:
        resource = {"url": task.result_url, "type": "image", "format": "png", "role": "primary"}
        data["result"] = {"resources": [resource]}
    return data
