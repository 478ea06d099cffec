"""The conversion of Kling's messages to events."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import EXCLUDE, Schema, ValidationError, fields

from receiver.errors import NotJson, NotTheProtocol, RequestRefused
from receiver.events import Event, Source
from receiver.providers import get, kling_api, modellix
from receiver.providers.fields import checked, faults
from receiver.tasks import Status
from tests.support.samples import body, callback, payload

KLING = get("kling")
MONTH = 30 * 86_400_000


def parse(raw: bytes, source: Source = Source.CALLBACK) -> Event:
    return KLING.parse(callback(raw, source=source))


def test_a_recorded_callback_is_parsed() -> None:
    event = parse(payload("kling/callback-video-succeed.json"))
    assert event.provider_task_id == "828338674605220001"
    assert event.status is Status.SUCCEEDED
    assert event.occurred_at == 1_765_520_080_995
    assert event.reason is None
    (video,) = event.media
    assert (video.kind, video.index, video.duration) == ("video", "828338674655570002", "5.1")
    assert video.url.startswith("https://v15-kling-fdl.klingai.com/")
    assert video.expires_at == 1_768_112_080_000  # Expires= in the URL


def test_a_recorded_create_response_means_submitted() -> None:
    event = parse(payload("kling/create-try-on.json"), Source.CREATE)
    assert (event.status, event.provider_task_id) == (Status.SUBMITTED, "CjikY2gHPbcAAAAABI5n9g")


def test_our_own_id_is_returned() -> None:
    event = parse(payload("kling/create-external-task-id.json"), Source.CREATE)
    assert event.external_task_id == "text2video_kling_v3_final-1774805076"


def test_a_recorded_query_response_is_unwrapped() -> None:
    event = parse(payload("kling/query-processing.json"), Source.QUERY)
    assert (event.status, event.media) == (Status.PROCESSING, ())


def test_a_query_response_may_be_a_list_with_one_task() -> None:
    answer = json.loads(payload("kling/query-processing.json"))
    answer["data"] = [answer["data"]]
    assert parse(json.dumps(answer).encode(), Source.QUERY).status is Status.PROCESSING


@pytest.mark.parametrize("name", ["error-1201", "error-1303"])
def test_a_refused_create_ends_the_task_with_the_reason(name: str) -> None:
    raw = payload(f"kling/{name}.json")
    event = parse(raw, Source.CREATE)
    assert event.status is Status.FAILED
    assert event.reason == f"refused: {name[6:]} {json.loads(raw)['message']}"


@pytest.mark.parametrize("name", ["error-1201", "not-found-framework"])
def test_a_refused_query_does_not_change_the_task(name: str) -> None:
    with pytest.raises(NotTheProtocol, match=r"refused|does not describe"):
        parse(payload(f"kling/{name}.json"), Source.QUERY)


def test_a_failure_contains_the_reason_of_the_provider() -> None:
    event = parse(body("failed", task_status_msg="Failure to pass the risk control system"))
    assert event.reason == "Failure to pass the risk control system"


def test_unknown_keys_are_stored() -> None:
    assert parse(body(novelty={"a": 1})).unknown == {"novelty": {"a": 1}}


def test_the_cost_stays_the_original_string() -> None:
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
def test_the_expiry_of_a_url_is_read(url: str, at: int) -> None:
    images = {"images": [{"index": 0, "url": url}]}
    assert parse(body(task_result=images)).media[0].expires_at == at


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"task_id": 8283386746.5}, "task_id"),
        ({"task_id": ""}, "task_id"),
        ({"task_id": None}, "task_id"),
        ({"task_status": "completed"}, "task_status"),
        ({"task_status": " succeed"}, "task_status"),
        ({"task_status": None}, "task_status"),
    ],
)
def test_the_error_for_a_wrong_identity_or_status_names_the_field(
    change: dict[str, Any], names: str
) -> None:
    with pytest.raises(NotTheProtocol, match=names):
        parse(body(**change))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"updated_at": "soon"}, "updated_at"),
        ({"updated_at": 1e30}, "updated_at"),
        ({"updated_at": -1}, "updated_at"),
        ({"updated_at": True}, "updated_at"),
        ({"task_info": []}, "task_info"),
        ({"task_info": {"external_task_id": 7.5}}, "task_info.external_task_id"),
        ({"task_result": "none"}, "task_result"),
        ({"task_result": {"images": {}}}, "task_result.images"),
        ({"task_result": {"images": ["u"]}}, "task_result.images[0]"),
        ({"task_result": {"images": [{"index": 0}]}}, "task_result.images[0].url"),
    ],
)
def test_any_other_wrong_field_is_dropped_and_named(change: dict[str, Any], names: str) -> None:
    event = parse(body(**change))
    assert event.status is Status.SUCCEEDED
    assert [words.partition(":")[0] for words in event.dropped] == [names]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b'{"task_id": 0x1}',
        b'{"task_id": "a" "b"}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"9" * 5_000 + b"a}",
        b'{"task_id": "\\ud80", "task_status": "succeed"}',
    ],
    ids=["empty", "cut", "no text", "hexadecimal", "no comma", "deep", "long number", "escape"],
)
def test_a_body_that_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJson):
        parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"task_id": NaN, "task_status": "succeed"}',
        b'{"task_id": "a", "task_id": "b", "task_status": "succeed"}',
        b'{"task_id": ' + b"9" * 5_000 + b', "task_status": "succeed"}',
        b'{"task_id": "\\ud800", "task_status": "succeed"}',
        b'{"task_id": "\xff", "task_status": "succeed"}',
    ],
    ids=["nan", "key twice", "long integer", "surrogate", "not utf-8"],
)
def test_an_id_that_cannot_be_stored_is_refused(raw: bytes) -> None:
    with pytest.raises(NotTheProtocol, match="task_id"):
        parse(raw)


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"succeed"', b"1"])
def test_json_that_is_not_an_object_is_refused(raw: bytes) -> None:
    with pytest.raises(NotTheProtocol, match="object"):
        parse(raw)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(json.loads(body()))


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(), values, max_size=6))
def test_no_document_causes_an_unexpected_error(change: dict[str, Any]) -> None:
    """Every document results in an event or a refusal."""
    document = {**json.loads(body()), **change}
    try:
        event = parse(json.dumps(document).encode())
    except RequestRefused:
        return
    assert event.status in Status
    assert isinstance(event.provider_task_id, str)


SCHEMAS = (kling_api.LEGACY_SCHEMA, kling_api.SCHEMA, modellix.SCHEMA)
NAMES = sorted({name for schema in SCHEMAS for name in schema.fields})
usual = st.sampled_from(["1", "x" * 129, "submitted", "succeed", 7, -7, 10**14, 1.5, True, None])


@pytest.mark.parametrize("schema", SCHEMAS)
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), usual | values, max_size=8))
def test_an_envelope_is_checked_like_marshmallow_does(
    schema: Schema, document: dict[str, Any]
) -> None:
    """A wrong value of a required field is refused; any other wrong value is dropped."""
    wrong = schema.validate(document)
    needed = {name for name, one in schema.fields.items() if one.required}
    usable = {name: value for name, value in document.items() if name not in wrong}
    raw = [name for name, one in schema.fields.items() if type(one) is fields.Raw]
    dropped: list[str] = []
    try:
        found: object = checked(schema, document, dropped)
    except ValidationError as error:
        found = faults(error)
        refused = {name: words for name, words in wrong.items() if name in needed}
        expected: object = faults(ValidationError(refused))
        assert refused
    else:
        loaded = schema.load(usable, unknown=EXCLUDE)
        expected = {name: loaded[name] for name in loaded.keys() - raw}
    assert found == expected
    assert {words.partition(":")[0] for words in dropped} == wrong.keys() - needed


@given(st.binary())
def test_no_bytes_cause_an_unexpected_error(raw: bytes) -> None:
    with pytest.raises(RequestRefused):
        parse(raw)


# -- the new dialect


def new(status: str = "succeeded", **more: Any) -> bytes:
    document = {
        "id": "9",
        "status": status,
        "create_time": 1_781_080_770_000,
        "update_time": 1_781_080_794_151,
    }
    return json.dumps({**document, **more}).encode()


def test_the_body_that_kling_published_is_parsed() -> None:
    event = parse(payload("kling/signature-vector.json"))
    assert (event.provider_task_id, event.status) == ("1234567890", Status.SUCCEEDED)
    assert event.occurred_at == 1_781_080_794_151
    assert (event.media, event.reason, event.cost) == ((), None, None)


def test_all_fields_except_id_and_status_may_be_missing() -> None:
    event = parse(b'{"id": "9", "status": "processing"}')
    assert event.status is Status.PROCESSING
    assert event.occurred_at == 1_765_519_851_000  # the time of receipt


def test_both_dialects_result_in_the_same_event() -> None:
    url = "https://a/1.png?Expires=1768112080"
    old = parse(
        body(
            task_id="9",
            updated_at=1_781_080_794_151,
            task_info={"external_task_id": "ours"},
            task_result={"images": [{"index": 0, "url": url}]},
            final_unit_deduction="1.5",
        )
    )
    outputs = [{"type": "image", "url": url}]
    billing = [{"charge_type": "unit", "amount": "1.5"}]
    assert parse(new(external_id="ours", outputs=outputs, billing=billing)) == old


def test_outputs_of_the_new_dialect_are_media_of_their_type() -> None:
    outputs = [
        {"type": "image", "url": "https://a/1.png", "watermark_url": "https://a/w.png"},
        {"type": "video", "id": "v1", "url": "https://a/1.mp4", "duration": "5.1"},
        {"type": "audio", "id": "s1", "mp3_url": "https://a/1.mp3", "mp3_duration": "3.0"},
        {"type": "voice", "id": "o1", "name": "n", "url": "https://a/o.wav"},
        {"type": "element", "id": "e1", "name": "no url"},
        {"type": "hologram", "url": "https://a/h"},
    ]
    media = parse(new(outputs=outputs)).media
    assert [(one.kind, one.index, one.url[10:], one.duration) for one in media] == [
        ("image", "0", "1.png", None),
        ("video", "v1", "1.mp4", "5.1"),
        ("audio", "s1", "1.mp3", "3.0"),
        ("voice", "o1", "o.wav", None),
        ("hologram", "5", "h", None),
    ]


def test_outputs_have_different_indexes() -> None:
    result = {
        "images": [{"index": 0, "url": "https://a/1"}, {"index": 0, "url": "https://a/2"}],
        "audios": [{"url_mp3": "https://a/3"}],
    }
    indexes = [one.index for one in parse(body(task_result=result)).media]
    assert len(set(indexes)) == 3


@pytest.mark.parametrize(
    ("billing", "cost"),
    [
        ([], None),
        ([{"charge_type": "cash", "amount": "0.10", "currency": "USD"}], "0.10"),
        ([{"charge_type": "unit", "amount": "1"}, {"charge_type": "unit", "amount": "0.5"}], "1.5"),
        ([{"charge_type": "unit", "amount": "1"}, {"charge_type": "cash", "amount": "9"}], "1"),
    ],
)
def test_the_cost_is_the_charged_amount(billing: list[dict[str, str]], cost: str | None) -> None:
    assert parse(new(billing=billing)).cost == cost


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (new("success"), "status"),  # the notation of another provider
        (new(id=9.5), "id"),
        (new(id=""), "id"),
        (b'{"hello": "world"}', "task_id and task_status, or id and status"),
        (b'{"timestamp": 1, "data": {"task_id": "1", "status": "completed"}}', "PiAPI"),
        (b'{"code": 200, "msg": "ok", "data": {"taskId": "1", "state": "success"}}', "kie.ai"),
        (b'{"task_id": "1", "status": "COMPLETED", "generated": ["https://a"]}', "Freepik"),
    ],
)
def test_the_error_for_an_unknown_message_states_what_was_expected(raw: bytes, names: str) -> None:
    with pytest.raises(NotTheProtocol, match=names):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (new(outputs={}), ["outputs"]),
        (new(outputs=[{"type": "image"}]), ["outputs[0].url"]),
        (new(outputs=[{"url": "https://a"}]), ["outputs[0].type"]),
        (new(outputs=[{"mp3_url": "https://a"}]), ["outputs[0].type"]),
        (new(update_time="1"), ["update_time"]),
        (new("succeed"), []),  # the name that the other dialect uses
        (new(id=9), []),
    ],
)
def test_a_wrong_field_of_the_new_dialect_is_dropped_and_named(
    raw: bytes, names: list[str]
) -> None:
    event = parse(raw)
    assert (event.provider_task_id, event.status) == ("9", Status.SUCCEEDED)
    assert [words.partition(":")[0] for words in event.dropped] == names
    if b"https://a" in raw:  # the output itself is used
        assert [media.url for media in event.media] == ["https://a"]


@pytest.mark.parametrize("code", [5000, 5001, 5002])
def test_a_create_that_may_have_been_accepted_is_not_refused(code: int) -> None:
    raw = json.dumps({"code": code, "message": "internal", "request_id": "1"}).encode()
    with pytest.raises(NotTheProtocol, match="does not describe the task"):
        parse(raw, Source.CREATE)


@given(st.dictionaries(st.sampled_from(sorted(json.loads(new()))) | st.text(), values, max_size=6))
def test_no_document_of_the_new_dialect_causes_an_unexpected_error(change: dict[str, Any]) -> None:
    document = {**json.loads(new()), "outputs": [], **change}
    try:
        event = parse(json.dumps(document).encode())
    except RequestRefused:
        return
    assert event.status in Status
