"""Capabilities that no built-in adapter uses."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver import providers
from receiver.events import Source
from receiver.ingest import Ingest
from receiver.tasks import Status, Task
from submitter.api.errors import InvalidRequest
from submitter.api.request_body import TaskRequest, inputs_of
from submitter.errors import InputError
from submitter.pictures.inputs import prepare_inputs
from submitter.providers.base import PictureForm
from submitter.providers.kling import Kling
from submitter.queries import callback_of, schedule_for
from submitter.task_creation import TaskCreator
from tests.support.scripted_provider import Scripted

URL = "https://x.example/picture.jpg"
ONLY_URLS = "the provider accepts URLs only; give an http(s) URL"


def test_pictures_are_sent_as_data_uris(
    server: Scripted,
    make_creator: Callable[..., TaskCreator],
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Kling, "pictures", PictureForm.DATA_URI)
    creator = make_creator()
    inputs = prepare_inputs(creator.adapter, str(picture), str(picture))
    server.will(server.payload("create-try-on.json"))
    creator.send(creator.record_task(inputs), inputs)
    sent = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    assert server.asked[0].json["human_image"] == sent
    assert server.asked[0].json["cloth_image"] == sent


@pytest.mark.parametrize("field", ["human", "cloth"])
def test_only_urls_are_accepted(
    make_adapter: Callable[..., Kling],
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
) -> None:
    monkeypatch.setattr(Kling, "pictures", PictureForm.URL_ONLY)
    adapter = make_adapter()
    assert prepare_inputs(adapter, URL, URL).human == URL
    given = {"human": URL, "cloth": URL, field: str(picture)}
    with pytest.raises(InputError, match=r"accepts URLs only") as caught:
        prepare_inputs(adapter, given["human"], given["cloth"])
    assert caught.value.field == field


def test_the_api_reports_every_picture_that_is_not_a_url(
    make_adapter: Callable[..., Kling], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kling, "pictures", PictureForm.URL_ONLY)
    content = base64.b64encode(picture.read_bytes()).decode()
    request = TaskRequest("kling", content, (content,), None, None, "default")
    with pytest.raises(InvalidRequest) as caught:
        inputs_of(make_adapter(), request, 1.0)
    assert caught.value.members["errors"] == [
        {"field": "cloth", "detail": ONLY_URLS},
        {"field": "human", "detail": ONLY_URLS},
    ]


def test_responses_are_recorded_without_the_secret_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(providers.get("kling")), "secret_fields", ("data.secret",))
    task = Task("task-1", "kling", Status.SUBMITTED, 0, 0)
    callback = callback_of(task, b'{"data": {"id": "1", "secret": "a-secret"}}', Source.QUERY)
    assert b"a-secret" not in callback.body
    assert b'"id": "1"' in callback.body


def test_tasks_are_queried_while_their_results_exist(
    ingest: Ingest, make_adapter: Callable[..., Kling], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(providers.get("kling")), "results_kept_for", 60_000)
    schedule = schedule_for(ingest, make_adapter(), expects_callback=True, first_within=None)
    assert schedule.first == pytest.approx(30)
    assert schedule.next_wait(7_200) == pytest.approx(30)
