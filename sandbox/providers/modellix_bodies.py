"""A task in Modellix's responses, in each of the forms that have been seen."""

from __future__ import annotations

from typing import Any

from sandbox.engine import Status, Task
from sandbox.scenarios.scenario import FLAT_RESOURCES, PLAIN_URLS, SYNONYMS, SYNONYMS_FAILED

SPELLING = {
    Status.SUBMITTED: "pending",
    Status.PROCESSING: "processing",
    Status.SUCCEEDED: "success",
    Status.FAILED: "failed",
}
# Forms that the official client accepts as well.
OTHER_SPELLING = {**SPELLING, Status.SUCCEEDED: "completed", Status.FAILED: "canceled"}


def created(task: Task, url: str) -> dict[str, Any]:
    return {
        "status": SPELLING[Status.SUBMITTED],
        "task_id": task.task_id,
        "model_id": task.model,
        "get_result": {"method": "GET", "url": f"{url}/api/v1/tasks/{task.task_id}"},
    }


def queried(task: Task) -> dict[str, Any]:
    says_otherwise = task.scenario in (SYNONYMS, SYNONYMS_FAILED)
    spelling = OTHER_SPELLING if says_otherwise else SPELLING
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
