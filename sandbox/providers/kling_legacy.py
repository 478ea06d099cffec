"""Kling's legacy dialect: a task in responses and callbacks, also those of resellers."""

from __future__ import annotations

import json
from typing import Any

from sandbox.engine import Status, Task
from sandbox.outgoing_callbacks import OutgoingCallback

SPELLING = {
    Status.SUBMITTED: "submitted",
    Status.PROCESSING: "processing",
    Status.SUCCEEDED: "succeed",
    Status.FAILED: "failed",
}
COST = "1"  # a decimal string
# The keys of a callback captured in December 2025.
CALLBACK_HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "Apache-HttpClient/4.5.13 (Java/11.0.14-internal)",
    "Accept-Encoding": "gzip,deflate",
    "Connection": "Keep-Alive",
}


def callback(task: Task, url: str, external_task_id: str | None) -> OutgoingCallback:
    """Return the callback to `url` with the current state of the task."""
    body = json.dumps(callback_body(task), ensure_ascii=False, separators=(",", ":"))
    return OutgoingCallback(
        provider=task.provider,
        task_id=task.task_id,
        external_task_id=external_task_id,
        status=SPELLING[task.status],
        url=url,
        headers=CALLBACK_HEADERS,
        body=body.encode(),
    )


def callback_body(task: Task) -> dict[str, Any]:
    """Return the callback's JSON, with the keys in the order of the captured one."""
    # A captured callback of a video had all three arrays; the unused ones were empty.
    return _body(task, {"images": _images(task.result_urls), "videos": [], "audios": []})


def created(task: Task) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "task_status": SPELLING[Status.SUBMITTED],
        **({"task_info": _info(task)} if task.external_task_id else {}),
        "created_at": task.created_at,
        "updated_at": task.created_at,
    }


def queried(task: Task) -> dict[str, Any]:
    images = _images(task.queried_urls)
    return _body(task, {"images": images} if images else {})


def _body(task: Task, result: dict[str, Any]) -> dict[str, Any]:
    cost = {"final_unit_deduction": COST} if task.status is Status.SUCCEEDED else {}
    return {
        "task_id": task.task_id,
        "task_status": SPELLING[task.status],
        "task_info": _info(task),
        "task_result": result,
        "task_status_msg": task.reason,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        **cost,
    }


def _info(task: Task) -> dict[str, str]:
    return {"external_task_id": task.external_task_id} if task.external_task_id else {}


def _images(urls: list[str]) -> list[dict[str, Any]]:
    return [{"index": index, "url": url} for index, url in enumerate(urls)]
