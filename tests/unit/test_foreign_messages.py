"""The error for a message of another provider names it; Kling's messages are always accepted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from receiver import providers
from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event
from receiver.providers.foreign_messages import SHAPES
from tests.support.samples import PAYLOADS, body

RECORDED = {
    "fal": ["fal/callback-failed", "fal/callback-succeeded", "fal/query-completed"],
    "FASHN": ["fashn/callback-failed", "fashn/callback-succeeded"],
    "PiAPI": ["piapi/callback-failed", "piapi/callback-succeeded"],
    "Replicate": ["replicate/callback-failed", "replicate/callback-succeeded", "replicate/created"],
}
WAVESPEED: dict[str, Any] = {
    "id": "pred_abc123",
    "model": "kwaivgi/kling-v2.1-i2v-pro",
    "input": {"prompt": "a dress"},
    "outputs": [],
    "urls": {"get": "https://api.wavespeed.ai/api/v3/predictions/pred_abc123/result"},
    "has_nsfw_contents": [],
    "created_at": "2026-11-18T11:06:15.127Z",
    "error": "",
    "executionTime": 12000,
    "timings": {"inference": 12000},
}
QINIU: dict[str, Any] = {
    "id": "qvideo-user123-1704123456789",
    "object": "video",
    "model": "kling-v2-1",
    "mode": "std",
    "created_at": 1704123456,
    "updated_at": 1704123556,
    "seconds": "5",
    "size": "1280x720",
}
KIE: dict[str, Any] = {"taskId": "a1b2", "model": "kling/v2-1", "param": "{}", "costTime": 9}
FAL: dict[str, Any] = {"request_id": "r-1", "gateway_request_id": "r-2"}
PIAPI: dict[str, Any] = {"task_id": "7", "model": "kling", "task_type": "ai_try_on", "config": {}}
REPLICATE: dict[str, Any] = {"id": "a" * 26, "version": "hidden", "input": {}, "logs": ""}
URL = "https://cdn.example/0.png"
WRITTEN: list[tuple[str, dict[str, Any]]] = [
    ("WaveSpeed", {**WAVESPEED, "status": "completed", "outputs": [URL]}),
    ("WaveSpeed", {**WAVESPEED, "status": "failed", "error": "content policy"}),
    ("WaveSpeed", {**WAVESPEED, "status": "processing"}),
    ("WaveSpeed", {"id": "p", "status": "completed", "outputs": [URL]}),
    ("WaveSpeed", {"id": "p", "status": "failed", "outputs": [], "error": "x", "timings": {}}),
    (
        "WaveSpeed",
        {"id": "p", "status": "failed", "model": "m", "error": "x", "has_nsfw_contents": None},
    ),
    ("Qiniu", {**QINIU, "status": "completed", "task_result": {"videos": [{"url": URL}]}}),
    ("Qiniu", {**QINIU, "status": "failed", "error": {"code": "c", "message": "m"}}),
    ("Qiniu", {**QINIU, "status": "failed", "message": "not allowed"}),
    ("Qiniu", {"id": "q", "object": "video", "model": "kling-v2-1", "status": "failed"}),
    ("kie.ai", {"code": 200, "msg": "ok", "data": {**KIE, "state": "success"}}),
    ("kie.ai", {"code": 501, "msg": "failed", "data": {**KIE, "state": "fail", "failMsg": "x"}}),
    ("kie.ai", {"code": 501, "msg": "failed", "data": None}),
    ("kie.ai", {**KIE, "state": "fail", "failCode": "500", "failMsg": "x"}),
    ("Freepik", {"task_id": "1", "status": "COMPLETED", "generated": [URL]}),
    ("Freepik", {"task_id": "1", "status": "FAILED", "generated": []}),
    ("Freepik", {"task_id": "1", "status": "IN_PROGRESS", "generated": []}),
    ("Freepik", {"task_id": "1", "status": "FAILED", "generated": None, "has_nsfw": []}),
    ("PiAPI", {"timestamp": 1, "data": {}}),
    ("PiAPI", {"timestamp": 1, "data": {"task_id": "1", "status": "failed"}}),
    ("PiAPI", {**PIAPI, "status": "failed", "error": {"code": 1, "message": "m"}}),
    ("PiAPI", {**PIAPI, "status": "Completed", "output": {"works": []}}),
    ("fal", {**FAL, "status": "OK", "payload": None, "payload_error": "not JSON"}),
    ("fal", {**FAL, "status": "ERROR", "error": "timed out"}),
    ("fal", {"request_id": "r-1", "status": "ERROR", "error": "timed out", "payload": {}}),
    ("fal", {"request_id": "r-1", "status": "OK", "payload": {"images": []}}),
    ("fal", {"request_id": "r-1", "status": "ERROR", "error": "timed out"}),
    ("FASHN", {"id": "1-u1", "status": "failed", "error": {"name": "PoseError", "message": "m"}}),
    ("FASHN", {"id": "1-u1", "status": "completed", "output": [URL]}),
    ("FASHN", {"id": "1-u1", "status": "failed", "error": {"name": "n"}, "output": None}),
    ("FASHN", {"id": "1-u1", "status": "canceled", "error": None}),
    ("Replicate", {**REPLICATE, "status": "failed", "error": "CUDA out of memory"}),
    ("Replicate", {**REPLICATE, "status": "succeeded", "output": [URL]}),
    ("Replicate", {**REPLICATE, "status": "succeeded", "output": {"image": URL}}),
    ("Replicate", {**REPLICATE, "status": "canceled"}),
    ("Replicate", {**REPLICATE, "status": "processing"}),
    ("Replicate", {"id": "a", "status": "failed", "input": {}, "output": None, "error": "x"}),
    # Little more than an id in the format of the provider:
    ("FASHN", {"id": "00000000-0000-4000-8000-00000000000a", "status": "failed", "error": "x"}),
    ("FASHN", {"id": "00000000-0000-4000-8000-00000000000a-u1", "status": "time_out"}),
    ("Replicate", {"id": "a1" * 13, "status": "failed", "error": "x"}),
    ("WaveSpeed", {"id": "pred_abc123", "status": "failed", "error": "x", "outputs": []}),
    ("WaveSpeed", {"id": "0123456789abcdef" * 2, "status": "failed", "timings": {}}),
    ("Qiniu", {"id": "qvideo-7-1704123456789", "status": "failed", "error": {"code": "c"}}),
]
FOREIGN = WRITTEN + [
    (provider, json.loads((PAYLOADS / f"{name}.json").read_bytes()))
    for provider, names in RECORDED.items()
    for name in names
]

LEGACY: dict[str, Any] = json.loads(body())
LEGACY_SHORT = {"task_id": "1", "task_status": "failed"}
NEW: dict[str, Any] = {
    "id": "1",
    "status": "succeeded",
    "message": "",
    "create_time": 1_765_519_848_595,
    "update_time": 1_765_519_850_000,
    "external_id": "",
    "outputs": [{"type": "image", "url": URL}],
    "billing": [{"charge_type": "unit", "amount": "1"}],
}
NEW_SHORT = {"id": "1", "status": "failed"}
NEW_REASON = {"id": "1", "status": "failed", "message": "refused"}
NEW_OUTPUTS = {"id": "1", "status": "succeeded", "outputs": [{"type": "image", "url": URL}]}
NEW_IDS = [{**NEW_SHORT, "id": one} for one in ("867283741759111202", "CjMkWmdTn0sAAAAAAlwQbg", 7)]
OURS = [LEGACY, LEGACY_SHORT, NEW, NEW_SHORT, NEW_REASON, NEW_OUTPUTS, *NEW_IDS]
KEYS = sorted(
    {key for shape in SHAPES.values() for key in shape}
    | {"prediction", "task", "result", "metadata", "event", "type", "video", "images", "token"}
)
VALUES: list[Any] = [None, "x", "", 1, 1.5, True, [], [URL], [{"url": URL}], {}, {"get": URL}]


def parse(document: dict[str, Any], provider: str = "kling") -> Event:
    raw = json.dumps(document).encode()
    return providers.get(provider).parse(Callback(provider, "t", raw, 1_765_519_851_000))


@pytest.mark.parametrize(("name", "document"), FOREIGN)
@pytest.mark.parametrize("provider", ["kling", "appypie"])
def test_the_error_for_a_message_of_another_provider_names_it(
    name: str, document: dict[str, Any], provider: str
) -> None:
    with pytest.raises(NotTheProtocol, match=f"a message of {name}, .*task_id and task_status"):
        parse(document, provider)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("ours", OURS)
def test_an_additional_key_is_ignored(ours: dict[str, Any], key: str) -> None:
    if key in ours:
        return
    known = {"message", "outputs"} if "id" in ours else {"task_result"}
    plain = parse(ours)
    for value in VALUES:
        event = parse({**ours, key: value})
        assert (event.provider_task_id, event.status) == (plain.provider_task_id, plain.status)
        assert key in known or event.media == plain.media


@pytest.mark.parametrize("ours", [LEGACY, LEGACY_SHORT, NEW, NEW_OUTPUTS])
@pytest.mark.parametrize("theirs", [document for _, document in FOREIGN])
def test_a_field_that_only_kling_has_outweighs_other_keys(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert parse({**theirs, **ours}).status == parse(ours).status


@pytest.mark.parametrize("ours", [NEW, NEW_REASON, NEW_OUTPUTS])
def test_an_additional_error_in_a_message_of_kling_is_ignored(ours: dict[str, Any]) -> None:
    error = {"name": "PoseError", "message": "no person"}
    assert parse({**ours, "error": error}).status == parse(ours).status


@pytest.mark.parametrize(
    "document",
    [
        {"error": "x"},
        {"error": "UnauthorizedAccess", "message": "Invalid token"},
        {"code": 0, "message": "SUCCEED", "request_id": "r", "data": LEGACY},
        {"code": 1201, "message": "wrong", "request_id": "r"},
        {"id": "1", "status": "strange"},
        {"task_id": "1", "status": "failed"},
        {"hello": "world"},
        {"id": "1"},
        {"status": "failed"},
        {},
    ],
)
def test_the_error_for_an_unknown_message_names_no_provider(document: dict[str, Any]) -> None:
    with pytest.raises(NotTheProtocol) as refused:
        parse(document)
    assert "looks like" not in str(refused.value)
