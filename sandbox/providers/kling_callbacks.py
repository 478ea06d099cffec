"""Kling's callbacks, in the legacy or the newer dialect, signed if there is a secret."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sandbox.engine import Status
from sandbox.providers import kling_legacy
from sandbox.providers.standard_webhooks import Signer
from sandbox.scenarios.scenario import NEW_DIALECT, NEW_DIALECT_FAILED

if TYPE_CHECKING:
    from sandbox.engine import Task
    from sandbox.outgoing_callbacks import OutgoingCallback


class KlingCallbacks:
    """Builds callbacks; they are unsigned without a secret.

    Raises SecretError for an invalid secret.
    """

    def __init__(self, secret: str | None = None) -> None:
        self._signer = Signer(secret) if secret else None

    def callback(self, task: Task, url: str) -> OutgoingCallback:
        callback = kling_legacy.callback(task, url, task.external_task_id)
        if task.scenario in (NEW_DIALECT, NEW_DIALECT_FAILED):
            body = json.dumps(new_body(task), ensure_ascii=False, separators=(",", ":"))
            callback = replace(callback, status=task.status.value, body=body.encode())
        if self._signer is None:
            return callback
        # The same id for all retries; Kling does not document whether its webhook-id
        # stays the same.
        return replace(callback, sign=self._signer.headers).signed()


def new_body(task: Task) -> dict[str, Any]:
    """Return the callback of APIs that have the model version in the create request's path."""
    body: dict[str, Any] = {
        "id": task.task_id,
        "status": task.status.value,
        "message": task.reason,
        "create_time": task.created_at,
        "update_time": task.updated_at,
    }
    if task.external_task_id:
        body["external_id"] = task.external_task_id
    if task.result_url:
        body["outputs"] = [{"type": "image", "url": task.result_url}]
    if task.status is Status.SUCCEEDED:
        body["billing"] = [{"charge_type": "unit", "amount": kling_legacy.COST}]
    return body
