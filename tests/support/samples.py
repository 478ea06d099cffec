"""Samples for the tests of every tier: callbacks of Kling's legacy dialect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from receiver.deliveries import Subscription
from receiver.events import Callback

PAYLOADS = Path(__file__).parents[1] / "payloads"
SECRET = "a-secret-for-the-tests-only"


def payload(name: str) -> bytes:
    """Return a recorded body, byte for byte."""
    return (PAYLOADS / name).read_bytes()


def body(status: str = "succeed", task_id: str = "828338674605220001", **more: Any) -> bytes:
    """Return a callback of Kling's legacy dialect."""
    document: dict[str, Any] = {
        "task_id": task_id,
        "task_status": status,
        "task_status_msg": "",
        "task_info": {},
        "task_result": {"images": [], "videos": [], "audios": []},
        "created_at": 1_765_519_848_595,
        "updated_at": 1_765_519_850_000,
    }
    if status == "succeed":
        document["task_result"]["images"] = [{"index": 0, "url": "https://cdn.example/0.png"}]
    return json.dumps({**document, **more}).encode()


def callback(raw: bytes | None = None, task_id: str = "task-1", **more: Any) -> Callback:
    """Return a callback as the web process passes it to `Ingest`."""
    return Callback(
        provider="kling",
        task_id=task_id,
        body=body() if raw is None else raw,
        received_at=more.pop("received_at", 1_765_519_851_000),
        **more,
    )


def subscription(hook: str = "mail", **more: Any) -> Subscription:
    """Return a subscription to the two final statuses."""
    return Subscription(hook=hook, on=frozenset({"succeeded", "failed"}), **more)
