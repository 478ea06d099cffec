"""Modellix' responses, as the sandbox writes them, and its limit of requests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.engine import Status, Task
from sandbox.providers import modellix
from sandbox.rate_limit import RateLimit
from sandbox.scenarios.scenario import SUCCEED, named

PAYLOADS = Path(__file__).parents[2] / "payloads" / "modellix"
URL = "http://x.example/1.png"
TASK = Task(
    provider="modellix",
    task_id="867283741759111202",
    external_task_id=None,
    model="kolors-virtual-try-on-v1-5",
    callback_url=None,
    scenario=SUCCEED,
    created_at=1_764_235_825_029,
    updated_at=1_764_235_834_382,
)
DONE = replace(TASK, status=Status.SUCCEEDED, result_url=URL, result_size=(1024, 768))


def recorded(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((PAYLOADS / name).read_bytes())["data"]
    return data


def test_a_success_has_the_fields_of_the_documented_one_in_the_same_order() -> None:
    documented = recorded("query-success.json")
    ours = modellix.queried(DONE)
    assert list(ours) == list(documented)
    (resource,), (example,) = ours["result"]["resources"], documented["result"]["resources"]
    assert list(resource) == list(example)
    assert (resource["url"], resource["width"], resource["height"]) == (URL, 1024, 768)
    assert ours["duration"] == 9_353


def test_a_create_and_an_open_task_look_like_the_documented_ones() -> None:
    created = modellix.created(TASK, "http://x.example")
    assert list(created) == [*recorded("create.json"), "get_result"]
    assert created["get_result"]["url"] == f"http://x.example/api/v1/tasks/{TASK.task_id}"
    assert list(modellix.queried(TASK)) == list(recorded("query-pending.json"))


@pytest.mark.parametrize(
    ("scenario", "status", "headers_of"),
    [
        ("succeed", Status.SUBMITTED, "pending"),
        ("succeed", Status.PROCESSING, "processing"),
        ("succeed", Status.SUCCEEDED, "success"),
        ("failed", Status.FAILED, "failed"),
        ("synonyms", Status.PROCESSING, "processing"),
        ("synonyms", Status.SUCCEEDED, "completed"),
        ("synonyms-failed", Status.FAILED, "canceled"),
    ],
)
def test_each_status_has_its_name(scenario: str, status: Status, headers_of: str) -> None:
    task = replace(TASK, scenario=named(scenario), status=status)
    assert modellix.queried(task)["status"] == headers_of


def test_resources_are_listed_wherever_they_were_observed() -> None:
    flat = modellix.queried(replace(DONE, scenario=named("flat-resources")))
    assert "result" not in flat
    assert flat["resources"][0]["url"] == URL
    plain = modellix.queried(replace(DONE, scenario=named("plain-urls")))
    assert plain["result"] == {"resources": [URL]}


def test_a_failure_contains_the_reason_and_no_result() -> None:
    data = modellix.queried(replace(TASK, status=Status.FAILED, reason="no human"))
    assert data["error"] == "no human"
    assert "result" not in data


class Clock:
    now = 1_000.5

    def __call__(self) -> float:
        return self.now


def headers_of(limit: RateLimit) -> list[str]:
    headers = limit.headers()
    return [headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")]


def test_a_minute_after_the_first_request_another_one_is_allowed() -> None:
    clock = Clock()
    limit = RateLimit(2, clock)
    assert headers_of(limit) == ["2", "2", "1001"]
    assert limit.take()
    clock.now += 30
    assert limit.take()
    assert headers_of(limit) == ["2", "0", "1061"]
    assert not limit.take()
    clock.now += 30
    assert limit.take()
    assert not limit.take()
    assert headers_of(limit) == ["2", "0", "1091"]
