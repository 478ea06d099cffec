"""The dropped fields that cause the loss of an output, in each dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from receiver import providers
from receiver.events import Callback, Event, Source

URL = "https://cdn.example/0.png"
GOOD = {"index": 0, "url": URL}


def read(document: dict[str, Any], provider: str = "kling", *, is_callback: bool = True) -> Event:
    raw = json.dumps(document if is_callback else {"code": 0, "data": document}).encode()
    source = Source.CALLBACK if is_callback else Source.QUERY
    return providers.get(provider).parse(Callback(provider, "t", raw, 1, source=source))


def legacy(result: object, provider: str = "kling") -> Event:
    return read({"task_id": "1", "task_status": "succeed", "task_result": result}, provider)


def new(outputs: object) -> Event:
    return read({"id": "1", "status": "succeeded", "outputs": outputs})


def modellix(**data: Any) -> Event:
    document = {"task_id": "1", "status": "success", **data}
    return read(document, "modellix", is_callback=False)


LOST: list[tuple[Event, str]] = [
    (legacy({"images": [GOOD, None]}), "task_result.images[1]: expected an object"),
    (legacy({"images": [GOOD, {"url": ""}]}), "task_result.images[1].url: expected a URL"),
    (legacy({"images": [GOOD, {}]}), "task_result.images[1].url: expected a URL"),
    (legacy({"images": [GOOD, URL]}), "task_result.images[1]: expected an object"),
    (legacy({"images": [GOOD], "videos": {"0": 1}}), "task_result.videos: expected an array"),
    (legacy({"images": [GOOD], "videos": "x"}), "task_result.videos: expected an array"),
    (legacy({"audios": [{"url_mp3": 1, "url_wav": None}]}), "task_result.audios[0].url_mp3: "),
    (legacy([GOOD]), "task_result: expected an object"),
    (legacy({"images": [GOOD] * 300}), "task_result.images: more than 256 entries"),
    (legacy({"images": [None]}, "appypie"), "task_result.images[0]: expected an object"),
    (new([{"type": "image", **GOOD}, None]), "outputs[1]: expected an object"),
    (new([{"type": "image", "url": None}]), "outputs[0].url: expected a URL"),
    (new({"type": "image", **GOOD}), "outputs: expected an array"),
    (modellix(result={"resources": [URL, None]}), "data.result.resources[1]: expected"),
    (modellix(result={"resources": [URL, {"url": 1}]}), "data.result.resources[1].url: expected"),
    (modellix(result=[URL]), "data.result: expected an object"),
]
WHOLE: list[Event] = [
    legacy({"images": [GOOD], "videos": {}}),
    legacy({"images": [GOOD], "videos": ""}),
    legacy([]),
    legacy({"images": [{**GOOD, "watermark_url": 5, "duration": []}]}),
    legacy({"audios": [{"url_mp3": None, "url_wav": URL}]}),
    new([{"url": URL}]),
    new([{"type": "element", "id": "e"}, {"type": "image", **GOOD}]),
    read({"id": "1", "status": "succeeded", "outputs": [GOOD], "billing": [None]}),
    modellix(result=[], resources=[URL]),
    modellix(result={"resources": [{"url": URL, "type": 5}]}),
]


@pytest.mark.parametrize(("event", "named"), LOST)
def test_an_output_that_cannot_be_used_is_lost_and_named(event: Event, named: str) -> None:
    assert any(one.startswith(named) for one in event.lost_outputs)
    assert set(event.lost_outputs) <= set(event.dropped)


@pytest.mark.parametrize("event", WHOLE)
def test_any_other_invalid_field_loses_no_output(event: Event) -> None:
    assert event.lost_outputs == ()
