"""What every provider room on the way in promises; each runs through the same cases."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import NotJson, RequestRefused
from receiver.events import Callback, Source
from receiver.providers import PROVIDERS, Provider, status_for
from receiver.tasks import Status
from tests.support.samples import body, callback


@dataclass(frozen=True)
class Words:
    """How one provider says what they all say."""

    success: bytes  # as the answer to a query
    refusal: bytes  # as the answer to a create: "no human in the picture"
    told: bytes | None = None  # a success as a callback; None: it has no callbacks


def enveloped(data: object) -> bytes:
    return json.dumps({"code": 0, "data": data}).encode()


RESOURCES = {"task_id": "1", "status": "success", "resources": ["https://cdn.example/0.png"]}
REFUSAL = b'{"code": 400, "message": "no human in the picture"}'
WORDS = {
    "kling": Words(enveloped(json.loads(body())), REFUSAL, body()),
    "modellix": Words(enveloped(RESOURCES), REFUSAL),
    "appypie": Words(enveloped(json.loads(body())), REFUSAL, body()),
}
ROOMS = list(PROVIDERS.values())
rooms = pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
sources = pytest.mark.parametrize("source", list(Source))


def message(room: Provider, raw: bytes, source: Source) -> Callback:
    return replace(callback(raw, source=source), provider=room.name)


def test_every_room_is_in_the_suite() -> None:
    assert set(WORDS) == set(PROVIDERS)


@rooms
def test_it_stands_in_the_register_under_its_name(room: Provider) -> None:
    assert PROVIDERS[room.name] is room
    assert room.name.isidentifier()  # it stands in URLs and in the names of settings


@rooms
def test_a_success_has_a_picture_and_belongs_to_the_room(room: Provider) -> None:
    event = room.parse(message(room, WORDS[room.name].success, Source.QUERY))
    assert (event.provider, event.status) == (room.name, Status.SUCCEEDED)
    assert [media.kind for media in event.media] == ["image"]
    assert event.provider_task_id
    assert all(media.expires_at for media in event.media)


@rooms
def test_parsing_is_pure(room: Provider) -> None:
    told = message(room, WORDS[room.name].success, Source.QUERY)
    assert room.parse(told) == room.parse(told)


@rooms
def test_a_refused_create_ends_the_task_and_says_why(room: Provider) -> None:
    raw = WORDS[room.name].refusal
    event = room.parse(message(room, raw, Source.CREATE))
    assert event.status is Status.FAILED
    assert event.reason is not None
    assert event.reason.startswith("refused: ")
    assert "no human in the picture" in event.reason
    with pytest.raises(RequestRefused):
        room.parse(message(room, raw, Source.QUERY))


@rooms
@sources
@pytest.mark.parametrize("raw", [b"", b"<html>", b'{"a": nan}', b'{"a": 1, "a"}'])
def test_what_is_not_json_is_refused(room: Provider, source: Source, raw: bytes) -> None:
    with pytest.raises(NotJson):
        room.parse(message(room, raw, source))


@rooms
@sources
@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b"[]",
        b'{"hello": "world"}',
        b'{"data": {}}',
        b'{"code": 0}',
        b'{"code": 0, "data": null}',
        b'{"code": 0, "data": {"task_id": 1, "task_status": 2, "status": 3}}',
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
    ],
)
def test_what_tells_no_status_is_refused_or_a_refusal(
    room: Provider, source: Source, raw: bytes
) -> None:
    try:
        event = room.parse(message(room, raw, source))
    except RequestRefused:
        return
    assert (source, event.status) == (Source.CREATE, Status.FAILED)


@rooms
def test_a_room_without_callbacks_takes_none(room: Provider) -> None:
    told = WORDS[room.name].told
    assert (told is not None) is room.has_callbacks
    if told is not None:
        assert room.parse(message(room, told, Source.CALLBACK)).status is Status.SUCCEEDED
    else:
        with pytest.raises(RequestRefused):
            room.parse(message(room, WORDS[room.name].success, Source.CALLBACK))


@rooms
@given(raw=st.binary(), source=st.sampled_from(Source))
def test_no_bytes_break_it(room: Provider, raw: bytes, source: Source) -> None:
    try:
        room.parse(message(room, raw, source))
    except RequestRefused:
        return


def test_a_status_is_known_in_any_spelling() -> None:
    assert status_for("succeed") == status_for("success") == status_for("succeeded") == "succeeded"
    assert status_for("pending") == "submitted"
    assert status_for("nonsense") is None
