"""Kling's messages, as the sandbox writes them, have the structure of recorded ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.engine import Status, Task
from sandbox.providers import kling_callbacks, kling_legacy
from sandbox.scenarios.scenario import NEW_DIALECT, SUCCEED

PAYLOADS = Path(__file__).parents[2] / "payloads" / "kling"
TASK = Task(
    provider="kling",
    task_id="867283741759111202",
    external_task_id=None,
    model="kolors-virtual-try-on-v1",
    callback_url=None,
    scenario=SUCCEED,
    created_at=1_764_235_825_029,
    updated_at=1_764_235_834_382,
)


def recorded(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((PAYLOADS / name).read_bytes())
    return document


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [] if isinstance(value, list) else type(value).__name__


def test_a_callback_has_the_keys_of_a_captured_one_in_the_same_order() -> None:
    captured = recorded("callback-video-succeed.json")
    ours = kling_legacy.callback_body(replace(TASK, status=Status.PROCESSING))
    assert list(ours) == list(captured)
    assert shape(ours) == shape(captured)


def test_a_callback_is_sent_with_the_captured_headers() -> None:
    headers = recorded("callback-video-succeed.headers.json")
    notice = kling_callbacks.KlingCallbacks().callback(TASK, "http://sink.example")
    assert notice.headers == {name: headers[name] for name in notice.headers}
    assert json.loads(notice.body) == kling_legacy.callback_body(TASK)
    assert b": " not in notice.body


def test_a_success_contains_its_picture_and_its_price() -> None:
    done = replace(TASK, status=Status.SUCCEEDED, result_url="http://x.example/1.png?Expires=1")
    body = kling_legacy.callback_body(done)
    assert body["task_status"] == "succeed"
    assert body["task_result"]["images"] == [{"index": 0, "url": done.result_url}]
    assert body["final_unit_deduction"] == "1"


def test_a_failure_contains_its_reason_and_no_picture() -> None:
    body = kling_legacy.callback_body(replace(TASK, status=Status.FAILED, reason="no human"))
    assert (body["task_status"], body["task_status_msg"]) == ("failed", "no human")
    assert body["task_result"] == {"images": [], "videos": [], "audios": []}
    assert "final_unit_deduction" not in body


@pytest.mark.parametrize(
    ("external", "info"), [(None, {}), ("ORDER-7", {"external_task_id": "ORDER-7"})]
)
def test_the_external_id_is_in_task_info(external: str | None, info: dict[str, str]) -> None:
    assert kling_legacy.callback_body(replace(TASK, external_task_id=external))["task_info"] == info


def test_the_newer_dialect_has_its_own_names() -> None:
    task = replace(TASK, scenario=NEW_DIALECT, external_task_id="ORDER-7", callback_url="http://x")
    done = replace(task, status=Status.SUCCEEDED, result_url="http://x.example/1.png")
    notice = kling_callbacks.KlingCallbacks().callback(done, "http://sink.example")
    assert notice.status == "succeeded"
    assert json.loads(notice.body) == {
        "id": TASK.task_id,
        "status": "succeeded",
        "message": "",
        "create_time": TASK.created_at,
        "update_time": TASK.updated_at,
        "external_id": "ORDER-7",
        "outputs": [{"type": "image", "url": "http://x.example/1.png"}],
        "billing": [{"charge_type": "unit", "amount": "1"}],
    }


def test_the_newer_dialect_omits_absent_values() -> None:
    body = kling_callbacks.new_body(replace(TASK, status=Status.FAILED, reason="no human"))
    assert list(body) == ["id", "status", "message", "create_time", "update_time"]
    assert (body["status"], body["message"]) == ("failed", "no human")
