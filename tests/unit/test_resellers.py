"""The conversion of Appy Pie's and Modellix's messages to events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from receiver.errors import NotTheProtocol
from receiver.events import Event, Source
from receiver.providers import get
from receiver.tasks import Status
from tests.support.samples import body, callback, payload

RECEIVED = 1_765_519_851_000
DAY = 86_400_000


def parse(provider: str, raw: bytes, source: Source) -> Event:
    return get(provider).parse(replace(callback(raw, source=source), provider=provider))


def test_appypie_responds_in_klings_envelope() -> None:
    created = parse("appypie", payload("appypie/create.json"), Source.CREATE)
    assert (created.status, created.provider) == (Status.SUBMITTED, "appypie")
    found = parse("appypie", payload("appypie/query-succeed.json"), Source.QUERY)
    assert found.status is Status.SUCCEEDED
    assert found.media[0].url.startswith("https://cdn.klingai.com/")
    assert found.occurred_at == 1_731_928_309_425


def test_appypie_sends_callbacks_in_klings_dialect() -> None:
    assert parse("appypie", body(), Source.CALLBACK).status is Status.SUCCEEDED


@pytest.mark.parametrize("source", list(Source))
def test_task_not_found_is_an_error_of_the_query_and_not_a_failed_task(source: Source) -> None:
    with pytest.raises(NotTheProtocol):
        parse("appypie", payload("appypie/task-not-found.json"), source)


def test_both_error_formats_of_appypie_refuse_a_create() -> None:
    plain = parse("appypie", b'{"error": "Bad request"}', Source.CREATE)
    assert (plain.status, plain.reason) == (Status.FAILED, "refused: Bad request")
    enveloped = parse("appypie", b'{"code": 1201, "message": "no"}', Source.CREATE)
    assert enveloped.reason == "refused: 1201 no"
    with pytest.raises(NotTheProtocol):
        parse("appypie", b'{"error": "Bad request"}', Source.QUERY)


def test_modellix_create_and_pending_mean_submitted() -> None:
    created = parse("modellix", payload("modellix/create.json"), Source.CREATE)
    assert (created.status, created.provider_task_id) == (Status.SUBMITTED, "task-vto-v15-abc123")
    pending = parse("modellix", payload("modellix/query-pending.json"), Source.QUERY)
    assert pending.status is Status.SUBMITTED


def test_media_of_a_modellix_success_expire_after_a_day() -> None:
    event = parse("modellix", payload("modellix/query-success.json"), Source.QUERY)
    assert (event.status, event.occurred_at) == (Status.SUCCEEDED, RECEIVED)
    (image,) = event.media
    assert (image.kind, image.index) == ("image", "0")
    assert image.expires_at == RECEIVED + DAY


def answer(status: str = "success", **data: Any) -> bytes:
    return json.dumps({"code": 0, "data": {"task_id": "t", "status": status, **data}}).encode()


@pytest.mark.parametrize(
    "data",
    [
        {"result": {"resources": [{"url": "https://a/1.png", "type": "image"}]}},
        {"resources": [{"url": "https://a/1.png"}]},
        {"result": {"resources": ["https://a/1.png"]}},
        {"resources": ["https://a/1.png"]},
    ],
)
def test_resources_are_found_wherever_they_were_observed(data: dict[str, Any]) -> None:
    (image,) = parse("modellix", answer(**data), Source.QUERY).media
    assert (image.kind, image.url) == ("image", "https://a/1.png")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("pending", Status.SUBMITTED),
        ("processing", Status.PROCESSING),
        *[(word, Status.SUCCEEDED) for word in ("success", "completed", "succeeded")],
        *[(word, Status.FAILED) for word in ("failed", "error", "canceled", "cancelled")],
    ],
)
def test_every_status_and_synonym_is_known(theirs: str, ours: Status) -> None:
    assert parse("modellix", answer(theirs), Source.QUERY).status is ours
    assert get("modellix").statuses[theirs] is ours


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"error": "no human"}, "no human"),
        ({"error": {"code": 1, "message": "no human"}}, "no human"),
        ({"message": "no human"}, "no human"),
        ({}, "failed"),
    ],
)
def test_the_reason_of_a_failure_is_found_wherever_it_is(data: dict[str, Any], reason: str) -> None:
    assert parse("modellix", answer("failed", **data), Source.QUERY).reason == reason


def test_a_refused_create_at_modellix_ends_the_task() -> None:
    event = parse("modellix", payload("modellix/error-400.json"), Source.CREATE)
    assert event.status is Status.FAILED
    assert event.reason == "refused: 400 Invalid parameters: parameter 'prompt' is required"


@pytest.mark.parametrize(
    ("raw", "source"),
    [
        (b'{"code": 500, "message": "Internal: x"}', Source.CREATE),  # it may have been accepted
        (b'{"code": 404, "message": "NotFound: x"}', Source.QUERY),
        (answer("strange"), Source.QUERY),
        (answer(task_id=None), Source.QUERY),
        (answer(task_id=1.5), Source.QUERY),
        (b'{"code": 0, "code": 0, "data": {"task_id": "t", "status": "failed"}}', Source.QUERY),
        (b'{"code": 0, "code": 400, "message": "no"}', Source.CREATE),
        (b'{"code": 0, "data": []}', Source.QUERY),
        (answer(), Source.CALLBACK),  # there is none
    ],
)
def test_a_message_without_a_task_is_refused(raw: bytes, source: Source) -> None:
    with pytest.raises(NotTheProtocol):
        parse("modellix", raw, source)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"result": []}, "data.result"),
        ({"resources": "u"}, "data.result.resources"),
        ({"resources": [1]}, "data.result.resources[0]"),
        ({"resources": [{"url": None}]}, "data.result.resources[0].url"),
    ],
)
def test_an_invalid_part_is_dropped_and_named(data: dict[str, Any], named: str) -> None:
    event = parse("modellix", answer(**data), Source.QUERY)
    assert (event.status, event.media) == (Status.SUCCEEDED, ())
    assert [words.partition(":")[0] for words in event.dropped] == [named]
