"""Kling's messages, theirs → ours."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import NotJson, NotTheProtocol, RequestRefused
from receiver.events import Event, Source
from receiver.providers import get
from receiver.tasks import Status
from samples import body, callback, payload

KLING = get("kling")
MONTH = 30 * 86_400_000


def parse(raw: bytes, source: Source = Source.CALLBACK) -> Event:
    return KLING.parse(callback(raw, source=source))


def test_a_recorded_callback_is_understood() -> None:
    event = parse(payload("kling/callback-video-succeed.json"))
    assert event.provider_task_id == "828338674605220001"
    assert event.status is Status.SUCCEEDED
    assert event.occurred_at == 1_765_520_080_995
    assert event.reason is None
    (video,) = event.media
    assert (video.kind, video.index, video.duration) == ("video", "828338674655570002", "5.1")
    assert video.url.startswith("https://v15-kling-fdl.klingai.com/")
    assert video.expires_at == 1_768_112_080_000  # Expires= in the URL


def test_a_recorded_create_answer_means_submitted() -> None:
    event = parse(payload("kling/create-try-on.json"), Source.CREATE)
    assert (event.status, event.provider_task_id) == (Status.SUBMITTED, "CjikY2gHPbcAAAAABI5n9g")


def test_our_own_id_comes_back() -> None:
    event = parse(payload("kling/create-external-task-id.json"), Source.CREATE)
    assert event.external_task_id == "text2video_kling_v3_final-1774805076"


def test_a_recorded_query_answer_is_unwrapped() -> None:
    event = parse(payload("kling/query-processing.json"), Source.QUERY)
    assert (event.status, event.media) == (Status.PROCESSING, ())


def test_a_query_may_answer_a_list_of_one() -> None:
    answer = json.loads(payload("kling/query-processing.json"))
    answer["data"] = [answer["data"]]
    assert parse(json.dumps(answer).encode(), Source.QUERY).status is Status.PROCESSING


@pytest.mark.parametrize("name", ["error-1201", "error-1303"])
def test_a_refused_create_ends_the_task_and_says_why(name: str) -> None:
    raw = payload(f"kling/{name}.json")
    event = parse(raw, Source.CREATE)
    assert event.status is Status.FAILED
    assert event.reason == f"refused: {name[6:]} {json.loads(raw)['message']}"


@pytest.mark.parametrize("name", ["error-1201", "not-found-framework"])
def test_a_refused_query_says_nothing_of_the_task(name: str) -> None:
    with pytest.raises(NotTheProtocol, match="query was refused"):
        parse(payload(f"kling/{name}.json"), Source.QUERY)


def test_a_failure_carries_the_providers_reason() -> None:
    event = parse(body("failed", task_status_msg="Failure to pass the risk control system"))
    assert event.reason == "Failure to pass the risk control system"


def test_unknown_keys_are_kept() -> None:
    assert parse(body(novelty={"a": 1})).unknown == {"novelty": {"a": 1}}


def test_the_cost_stays_the_string_it_is() -> None:
    assert parse(body(final_unit_deduction="0.50")).cost == "0.50"


def test_outputs_of_every_kind_are_media() -> None:
    result = {
        "images": [{"index": 3, "url": "https://a/1.png", "watermark_url": "https://a/w.png"}],
        "videos": [{"id": "v1", "url": "https://a/1.mp4", "duration": "5.1"}],
        "audios": [{"id": "s1", "url_mp3": "https://a/1.mp3", "duration_mp3": "3.0"}],
    }
    media = parse(body(task_result=result)).media
    assert [(one.kind, one.index, one.duration) for one in media] == [
        ("image", "3", None),
        ("video", "v1", "5.1"),
        ("audio", "s1", "3.0"),
    ]
    assert media[0].watermark_url == "https://a/w.png"


@pytest.mark.parametrize(
    ("url", "at"),
    [
        ("https://a/x.png?Expires=1768112080&Signature=b", 1_768_112_080_000),
        ("https://a/x.png?ksTime=69634dd0", 0x69634DD0 * 1000),
        ("https://a/x.png", 1_765_519_850_000 + MONTH),
        ("https://a/x.png?Expires=soon", 1_765_519_850_000 + MONTH),
        ("https://[a/x.png", 1_765_519_850_000 + MONTH),
    ],
)
def test_a_url_tells_when_it_stops_to_work(url: str, at: int) -> None:
    images = {"images": [{"index": 0, "url": url}]}
    assert parse(body(task_result=images)).media[0].expires_at == at


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"task_id": 828338674605220001}, "task_id"),
        ({"task_id": ""}, "task_id"),
        ({"task_status": "completed"}, "task_status"),
        ({"task_status": "SUCCEED"}, "task_status"),
        ({"task_status": None}, "task_status"),
        ({"updated_at": "1765519850000"}, "updated_at"),
        ({"updated_at": 1e30}, "updated_at"),
        ({"updated_at": -1}, "updated_at"),
        ({"updated_at": True}, "updated_at"),
        ({"task_info": []}, "task_info"),
        ({"task_info": {"external_task_id": 7}}, "external_task_id"),
        ({"task_result": "none"}, "task_result"),
        ({"task_result": {"images": {}}}, "task_result.images"),
        ({"task_result": {"images": ["u"]}}, r"task_result.images\[0\]"),
        ({"task_result": {"images": [{"index": 0}]}}, r"task_result.images\[0\].url"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], names: str) -> None:
    with pytest.raises(NotTheProtocol, match=names):
        parse(body(**change))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b'{"task_id": NaN}',
        b'{"task_id": "a", "task_id": "b"}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"task_id": "\\ud800", "task_status": "succeed"}',
    ],
    ids=["empty", "cut", "not utf-8", "nan", "key twice", "deep", "long integer", "surrogate"],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJson):
        parse(raw)


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"succeed"', b"1"])
def test_json_that_is_no_object_is_not_the_protocol(raw: bytes) -> None:
    with pytest.raises(NotTheProtocol, match="object"):
        parse(raw)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(json.loads(body()))


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(), values, max_size=6))
def test_no_document_breaks_the_schema(change: dict[str, Any]) -> None:
    """Whatever comes, the answer is an event or a refusal."""
    document = {**json.loads(body()), **change}
    try:
        event = parse(json.dumps(document).encode())
    except RequestRefused:
        return
    assert event.status in Status
    assert isinstance(event.provider_task_id, str)


@given(st.binary())
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    with pytest.raises(RequestRefused):
        parse(raw)
