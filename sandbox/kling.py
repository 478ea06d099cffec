"""Speaks Kling's virtual try-on API: create, query, list, and its callbacks' legacy dialect."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request

from sandbox import kling_auth, kling_order
from sandbox.callbacks import Notice
from sandbox.engine import ExternalIdTakenError, Status, Task, TooManyRunningError
from sandbox.kling_envelope import KlingError, framework_error, refusal, success
from sandbox.parts import parts

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException

NAME = "kling"
TRY_ON = "/v1/images/kolors-virtual-try-on"
SPELLING = {
    Status.SUBMITTED: "submitted",
    Status.PROCESSING: "processing",
    Status.SUCCEEDED: "succeed",
    Status.FAILED: "failed",
}
COST = "1"  # a decimal string
# Those of a captured callback, December 2025.
CALLBACK_HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "Apache-HttpClient/4.5.13 (Java/11.0.14-internal)",
    "Accept-Encoding": "gzip,deflate",
    "Connection": "Keep-Alive",
}

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
    order = kling_order.read(request.get_json(silent=True), parts().url)
    try:
        task = parts().engine.submit(order)
    except ExternalIdTakenError as fault:
        raise KlingError(1201, f"external_task_id '{fault}' already exists") from None
    except TooManyRunningError:
        raise KlingError(1303, "parallel task over resource pack limit") from None
    return success(_created(task))


@routes.get(f"{TRY_ON}/<key>")
@routes.get(f"{TRY_ON}//<key>")  # Kling's own client sends two slashes and follows no redirect
def query(key: str) -> Response:
    task = parts().engine.find(NAME, key)
    if task is None:
        raise KlingError(1203, f"task '{key}' does not exist")
    return success(_queried(task))


@routes.get(TRY_ON)
def list_tasks() -> Response:
    page = _number("pageNum", default=1, most=1000)
    size = _number("pageSize", default=30, most=500)
    tasks = parts().engine.tasks(NAME)[(page - 1) * size : page * size]
    return success([_queried(task) for task in tasks])


@routes.route(TRY_ON, methods=["PUT", "PATCH", "DELETE"])
@routes.route(f"{TRY_ON}/<key>", methods=["POST", "PUT", "PATCH", "DELETE"])
def no_such_method(key: str = "") -> Response:  # noqa: ARG001 - the route's, not needed
    raise KlingError(1202, f"method {request.method} is invalid here")


def before_the_api(error: HTTPException) -> Response:
    """Answer what Kling's framework answers where no route of its API is met."""
    status = HTTPStatus(error.code or HTTPStatus.NOT_FOUND)
    return framework_error(status.value, status.phrase, request.path)


class Callbacks:
    """The legacy dialect: what jobs that take `model_name` use, unwrapped, unsigned."""

    def notice(self, task: Task, url: str) -> Notice:
        body = json.dumps(callback_body(task), ensure_ascii=False, separators=(",", ":"))
        return Notice(
            provider=NAME,
            task_id=task.task_id,
            external_task_id=task.external_task_id,
            status=SPELLING[task.status],
            url=url,
            headers=CALLBACK_HEADERS,
            body=body.encode(),
        )


def callback_body(task: Task) -> dict[str, Any]:
    """Return the callback's JSON, in the order of the captured one."""
    return {
        "task_id": task.task_id,
        "task_status": SPELLING[task.status],
        "task_info": _info(task),
        # A captured callback of a video carried all three arrays, the unused ones empty.
        "task_result": {"images": _images(task), "videos": [], "audios": []},
        "task_status_msg": task.reason,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        **_cost(task),
    }


def _created(task: Task) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "task_status": SPELLING[Status.SUBMITTED],
        **({"task_info": _info(task)} if task.external_task_id else {}),
        "created_at": task.created_at,
        "updated_at": task.created_at,
    }


def _queried(task: Task) -> dict[str, Any]:
    images = _images(task)
    return {
        "task_id": task.task_id,
        "task_status": SPELLING[task.status],
        "task_info": _info(task),
        "task_result": {"images": images} if images else {},
        "task_status_msg": task.reason,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        **_cost(task),
    }


def _info(task: Task) -> dict[str, str]:
    return {"external_task_id": task.external_task_id} if task.external_task_id else {}


def _images(task: Task) -> list[dict[str, Any]]:
    return [{"index": 0, "url": task.result_url}] if task.result_url else []


def _cost(task: Task) -> dict[str, str]:
    return {"final_unit_deduction": COST} if task.status is Status.SUCCEEDED else {}


def _number(name: str, *, default: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most and len(text) <= 9:
        return int(text)
    raise KlingError(1201, f"{name} value '{text}' is invalid: it must be 1 to {most}")
