"""Callbacks and responses are parsed strictly for identity and status, and tolerantly otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import NotJson, NotTheProtocol, RequestRefused
from receiver.events import Event, Source
from receiver.providers import get
from receiver.providers.fields import amount, cleaned, identity, instant
from receiver.providers.json_body import decode_strictly
from receiver.providers.outputs import expires_at
from receiver.tasks import Status
from tests.support.samples import callback

LINES = (Path(__file__).parents[1] / "data" / "decoration.jsonl").read_text().splitlines()
DECORATED: list[dict[str, Any]] = [json.loads(line) for line in LINES]
RECEIVED_AT = 1_795_869_001_000
UPDATED_AT = 1_795_869_000_000
MONTH = 30 * 86_400_000
URL = "https://cdn.example/a.png"
LEGACY: dict[str, Any] = {
    "task_id": "p1",
    "task_status": "succeed",
    "task_status_msg": "",
    "task_info": {},
    "task_result": {"images": [{"index": 0, "url": URL}]},
    "created_at": UPDATED_AT - 20_000,
    "updated_at": UPDATED_AT,
}
NEW: dict[str, Any] = {
    "id": "p1",
    "status": "succeeded",
    "outputs": [{"type": "image", "url": URL}],
    "create_time": UPDATED_AT - 20_000,
    "update_time": UPDATED_AT,
}


def read(raw: bytes, source: Source = Source.CALLBACK, provider: str = "kling") -> Event:
    sent = callback(raw, source=source, received_at=RECEIVED_AT)
    return get(provider).parse(replace(sent, provider=provider))


def wrapped(raw: bytes, encoding: str = "utf-8") -> bytes:
    """Return the same task as the response to a query."""
    mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
    before, behind = ('{"code": 0, "message": "SUCCEED", "data": '.encode(encoding), b"}")
    return mark + before + raw.removeprefix(mark) + behind.decode().encode(encoding)


def parse(raw: bytes, encoding: str = "utf-8") -> Event:
    """Return the event of a callback, which is the same as that of the response to a query."""
    event = read(raw)
    assert read(wrapped(raw, encoding), Source.QUERY) == event
    return event


def refused(raw: bytes, error: type[RequestRefused], names: str) -> None:
    with pytest.raises(error, match=names):
        read(raw)
    with pytest.raises(error, match=names):
        read(wrapped(raw), Source.QUERY)


def dumped(document: object) -> bytes:
    """Return the document as JSON, with NaN and lone surrogates as Python writes them."""
    return json.dumps(document).encode()


# -- bodies with additional or invalid fields

NAMED = {
    "an instant that is null": "updated_at",
    "an array where an object is documented": "task_info",
    "an empty array as the result of a failed task": "task_result",
    "an unused family of results that is no array": "task_result.videos",
    "a second output that is null": "task_result.images[1]",
    "one of two audio formats is null": "task_result.audios[0].url_mp3",
    "new dialect: billing is an empty string": "billing",
}


def test_each_named_deviation_is_in_the_data() -> None:
    assert NAMED.keys() <= {one["what"] for one in DECORATED}
    assert len(DECORATED) == 12


@pytest.mark.parametrize("one", DECORATED, ids=[one["what"] for one in DECORATED])
def test_a_body_with_deviations_is_parsed_and_dropped_fields_are_named(one: dict[str, Any]) -> None:
    event = parse(dumped(one["body"]))
    failed = one["body"].get("task_status") == "failed"
    assert event.status is (Status.FAILED if failed else Status.SUCCEEDED)
    assert event.provider_task_id == str(one["body"].get("task_id", one["body"].get("id")))
    expected = "https://cdn.example/a.wav" if "audio" in one["what"] else URL
    assert [media.url for media in event.media] == ([] if failed else [expected])
    named = [words.partition(":")[0] for words in event.dropped]
    assert named == [where for what, where in NAMED.items() if what == one["what"]]


def test_a_number_is_accepted_for_a_decimal_string() -> None:
    assert parse(dumped({**LEGACY, "final_unit_deduction": 1})).cost == "1"
    assert parse(dumped({**LEGACY, "final_unit_deduction": 0.5})).cost == "0.5"
    assert parse(dumped({**NEW, "billing": [{"charge_type": "unit", "amount": 1.5}]})).cost == "1.5"
    video = {"videos": [{"id": "v", "url": URL, "duration": 5.1}]}
    assert parse(dumped({**LEGACY, "task_result": video})).media[0].duration == "5.1"


# -- each optional field with a value of each wrong type

HUGE = 10**120
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "a number": 7,
    "a float": 1.5,
    "an empty string": "",
    "a string": "x",
    "an empty array": [],
    "an array": ["x"],
    "an array of null": [None],
    "an empty object": {},
    "an object": {"x": [1]},
    "NaN": float("nan"),
    "infinity": float("-inf"),
    "a huge integer": HUGE,
    "half an emoji": "\ud83d",
}
# For each field, the values that are accepted or ignored. Any other value is dropped.
TEXTS = {"null", "zero", "a number", "a float", "an empty string", "a string", "half an emoji"}
IDS = {"null", "zero", "a number", "an empty string", "a string"}
OBJECTS = {"null", "an empty object", "an object"}
ARRAYS = {"null", "an empty array"}
UNREAD = set(VALUES)
STRINGS = {"null", "an empty string", "a string", "half an emoji"}
AMOUNTS = TEXTS
OLD_FIELDS = {
    "task_status_msg": TEXTS,
    "task_info": OBJECTS,
    "task_info.external_task_id": IDS,
    "task_result": OBJECTS,
    "task_result.images": ARRAYS,
    "task_result.videos": ARRAYS,
    "task_result.audios": ARRAYS,
    "task_result.images[0].watermark_url": STRINGS,
    "task_result.images[0].duration": AMOUNTS,
    "created_at": set(),
    "updated_at": set(),
    "final_unit_deduction": TEXTS,
    "final_balance_deduction": UNREAD,
    "novelty": UNREAD,
}
NEW_FIELDS = {
    "message": TEXTS,
    "external_id": IDS,
    "outputs": ARRAYS,
    "outputs[0].watermark_url": STRINGS,
    "outputs[0].duration": AMOUNTS,
    "outputs[0].type": {"a string", "half an emoji"},
    "create_time": set(),
    "update_time": set(),
    "billing": ARRAYS,
    "billing[0].amount": AMOUNTS,
    "billing[0].charge_type": STRINGS,
    "billing[0].currency": STRINGS,
    "novelty": UNREAD,
}
EVERY = [
    (base, field, name, name in usable)
    for base, fields in ((LEGACY, OLD_FIELDS), (NEW, NEW_FIELDS))
    for field, usable in fields.items()
    for name in VALUES
]


def with_value(base: dict[str, Any], field: str, value: object) -> dict[str, Any]:
    """Return the document with this value at this place, such as `task_result.images[0].url`."""
    document: dict[str, Any] = json.loads(json.dumps(base))
    place: Any = document
    *outer, last = field.replace("[0]", ".0").split(".")
    for key in outer:
        if isinstance(place, list):
            place = place[0]
        else:
            place = place.setdefault(key, [{}] if key == "billing" else {})
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("base", "field", "name", "usable"),
    EVERY,
    ids=[f"{'new' if base is NEW else 'old'} {field}: {name}" for base, field, name, _ in EVERY],
)
def test_no_value_of_an_optional_field_refuses_a_result(
    base: dict[str, Any], field: str, name: str, usable: bool
) -> None:
    event = parse(dumped(with_value(base, field, VALUES[name])))
    assert (event.provider_task_id, event.status) == ("p1", Status.SUCCEEDED)
    if field not in ("task_result", "task_result.images", "outputs"):
        assert [media.url for media in event.media] == [URL]  # nothing else removed the picture
    named = {words.partition(":")[0] for words in event.dropped}
    assert all(where.startswith(field.partition("[")[0]) for where in named)
    assert bool(named) is not usable
    assert storable(event)


def storable(event: Event) -> bool:
    """Return whether every database can store the texts of the event."""
    texts = [event.provider_task_id, event.reason, event.external_task_id, event.cost]
    for media in event.media:
        texts += [media.kind, media.url, media.index, media.watermark_url, media.duration]
    texts += [event.cost_unit, *event.dropped]
    return all(one.encode() and "\0" not in one for one in texts if one)


# -- outputs

FALSE_OUTPUTS: list[Any] = [
    None,
    True,
    7,
    1.5,
    "",
    "https://cdn.example/b.png",
    [],
    {},
    {"url": None},
]
FALSE_OUTPUTS += [{"url": ""}, {"url": " "}, {"url": 7}, {"url": []}, {"url": "https://a/\0"}]
FALSE_OUTPUTS += [{"url": "https://a/\ud83d"}, {"url": {"url": URL}}, [URL]]


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("other", FALSE_OUTPUTS, ids=ascii)
def test_an_invalid_output_affects_no_other(other: object, where: int) -> None:
    first, second = {"index": 5, "url": URL}, {"index": 6, "url": f"{URL}?2"}
    entries: list[object] = [first, second]
    entries.insert(where, other)
    event = parse(dumped({**LEGACY, "task_result": {"images": entries}}))
    assert [(media.index, media.url) for media in event.media] == [("5", URL), ("6", f"{URL}?2")]
    (words,) = event.dropped
    assert words.startswith(f"task_result.images[{where}]")
    typed: list[object] = [{**first, "type": "image"}, {**second, "type": "image"}]
    typed.insert(where, {"type": "image", **other} if isinstance(other, dict) else other)
    event = parse(dumped({**NEW, "outputs": typed}))
    assert [media.url for media in event.media] == [URL, f"{URL}?2"]
    (words,) = event.dropped
    assert words.startswith(f"outputs[{where}]")


@pytest.mark.parametrize("family", ["images", "videos", "audios"])
@pytest.mark.parametrize("value", [True, 7, 1.5, "", "x", {}, {"url": URL}], ids=repr)
def test_a_family_that_is_not_an_array_affects_no_other(family: str, value: object) -> None:
    other = {"images": "videos", "videos": "audios", "audios": "images"}[family]
    result = {other: [{"url": URL}], family: value}
    event = parse(dumped({**LEGACY, "task_result": result}))
    assert [media.url for media in event.media] == [URL]
    assert event.dropped == (f"task_result.{family}: expected an array",)


@pytest.mark.parametrize("bad", [None, "", 7, [], "  "], ids=repr)
@pytest.mark.parametrize(
    ("first", "second"), [("url_mp3", "url_wav"), ("url_wav", "url"), ("url_mp3", "url")]
)
def test_one_of_two_audio_formats_is_enough(first: str, second: str, bad: object) -> None:
    result = {"audios": [{"id": "a", first: bad, second: URL}]}
    event = parse(dumped({**LEGACY, "task_result": result}))
    assert [media.url for media in event.media] == [URL]
    assert event.dropped == (f"task_result.audios[0].{first}: expected a URL",)
    names = {"url_mp3": "mp3_url", "url_wav": "wav_url", "url": "url"}
    output = {"type": "audio", "id": "a", names[first]: bad, names[second]: URL}
    event = parse(dumped({**NEW, "outputs": [output]}))
    assert [media.url for media in event.media] == [URL]
    assert event.dropped == (f"outputs[0].{names[first]}: expected a URL",)


def test_spaces_around_a_url_are_ignored() -> None:
    images = {"images": [{"url": f" {URL}\n"}]}
    event = parse(dumped({**LEGACY, "task_result": images}))
    assert ([media.url for media in event.media], event.dropped) == ([URL], ())


def test_outputs_beyond_the_limit_are_dropped() -> None:
    event = parse(dumped({**LEGACY, "task_result": {"images": [{"url": URL}] * 5_000}}))
    assert len(event.media) == 256
    assert event.dropped == ("task_result.images: more than 256 entries",)
    families = {"images": [{"url": URL}] * 200, "videos": [{"url": URL}] * 200}
    event = parse(dumped({**LEGACY, "task_result": families}))
    assert (len(event.media), event.dropped) == (256, ("more than 256 outputs",))


def test_thousands_of_useless_outputs_are_not_all_named() -> None:
    event = parse(dumped({**LEGACY, "task_result": {"images": [None] * 50_000}}))
    assert len(event.dropped) == 257


def test_amounts_that_are_not_numbers_are_not_a_cost() -> None:
    for amounts in (["much", "1"], ["NaN", "1"], ["Infinity", "1"], ["9e999999", "9e999999"]):
        billing = [{"charge_type": "unit", "amount": one} for one in amounts]
        event = parse(dumped({**NEW, "billing": billing}))
        assert (event.cost, event.status) == (None, Status.SUCCEEDED)
        assert event.dropped == ("billing.amount: expected decimal strings",)


# -- instants

INSTANTS = [
    UPDATED_AT,
    UPDATED_AT // 1000,  # seconds
    UPDATED_AT * 1000,  # microseconds
    float(UPDATED_AT),
    UPDATED_AT / 1000,
    str(UPDATED_AT),
    str(UPDATED_AT // 1000),
    str(UPDATED_AT * 1000),
    f" {UPDATED_AT} ",
    f"{UPDATED_AT / 1000}",
    "2026-11-28T12:30:00Z",
    "2026-11-28T12:30:00",
    "2026-11-28 12:30:00",
    "2026-11-28T12:30:00.000Z",
    "2026-11-28T12:30:00.000000123Z",
    "2026-11-28T12:30:00+00:00",
    "2026-11-28T20:30:00+08:00",
    "2026-11-28T20:30:00+0800",
    "2026-11-28T07:30:00-05:00",
    "20261128T123000Z",
]
NO_INSTANTS: list[Any] = [None, True, False, 0, 0.0, -1, -UPDATED_AT, -UPDATED_AT // 1000, 1, 1.5]
NO_INSTANTS += [12_345, 32_503_680_000_001, 253_402_300_799_999, UPDATED_AT * 10**6, 2**63, HUGE]
NO_INSTANTS += [10**400, 1e30, float("nan"), float("inf"), "", " ", "0", "-1", "soon", "nan"]
NO_INSTANTS += ["1e400", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9" * 100_000]
NO_INSTANTS += ["2026-13-01T00:00:00Z", "1970-01-01T00:00:00Z", [], {}, [UPDATED_AT], "\ud83d"]


@pytest.mark.parametrize("value", INSTANTS, ids=repr)
def test_an_instant_is_read_in_each_unit_and_in_iso(value: object) -> None:
    for event in (
        parse(dumped({**LEGACY, "updated_at": value})),
        parse(dumped({**NEW, "update_time": value})),
    ):
        assert (event.occurred_at, event.dropped) == (UPDATED_AT, ())
        assert event.media[0].expires_at == UPDATED_AT + MONTH


@pytest.mark.parametrize("value", NO_INSTANTS, ids=lambda value: ascii(value)[:30])
def test_any_other_instant_is_replaced_by_the_time_of_receipt(value: object) -> None:
    if isinstance(value, int) and value > 10**300:
        raw = dumped({**LEGACY, "updated_at": 0}).replace(
            b'"updated_at": 0', b'"updated_at": %d' % value
        )
        events = [parse(raw)]
    else:
        events = [
            parse(dumped({**LEGACY, "updated_at": value})),
            parse(dumped({**NEW, "update_time": value})),
        ]
    for event in events:
        assert event.occurred_at == RECEIVED_AT
        assert event.media[0].expires_at == RECEIVED_AT + MONTH
        (words,) = event.dropped
        assert words.partition(":")[0] in ("updated_at", "update_time")


@pytest.mark.parametrize("digits", range(10, 17))
def test_only_the_magnitude_of_a_number_decides_its_unit(digits: int) -> None:
    """No number has two meanings, because each unit has its own range of magnitudes."""
    found = instant(int("17958690000000000"[:digits]))
    expected = {10: UPDATED_AT, 13: UPDATED_AT, 16: UPDATED_AT}
    assert digits not in expected or found == expected[digits]
    assert found is None or 946_684_800_000 <= found <= 32_503_680_000_000


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("Expires=1795869000", UPDATED_AT),
        ("Expires=1795869000000", UPDATED_AT),
        ("Expires=1795869000000000", UPDATED_AT),
        ("ksTime=6b0ac608", 0x6B0AC608 * 1000),
        ("Expires=0", 7),
        ("Expires=-1", 7),
        ("Expires=99", 7),
        ("Expires=99999999999999999999", 7),
        ("ksTime=0", 7),
        ("Expires=soon", 7),
    ],
)
def test_the_expiry_in_a_url_is_read_in_each_unit(query: str, at: int) -> None:
    assert expires_at(f"{URL}?{query}", 7) == at


# -- identity and status


@pytest.mark.parametrize("number", [0, 7, 828_312_345_678_901_234, 2**64, -1, 10**99])
def test_an_id_may_be_an_integer(number: int) -> None:
    assert parse(dumped({**LEGACY, "task_id": number})).provider_task_id == str(number)
    assert parse(dumped({**NEW, "id": number})).provider_task_id == str(number)
    ours = {**LEGACY, "task_info": {"external_task_id": number}}
    assert parse(dumped(ours)).external_task_id == str(number)
    assert parse(dumped({**NEW, "external_id": number})).external_task_id == str(number)


NO_IDS: list[Any] = [None, True, False, "", 1.5, 1e18, [], ["p1"], {}, {"id": "p1"}, float("nan")]
NO_IDS += [float("inf"), "p\0", "p\ud83d", "x" * 129, HUGE, "p\ufffd"]


@pytest.mark.parametrize("value", NO_IDS, ids=lambda value: ascii(value)[:30])
def test_an_invalid_id_is_refused(value: object) -> None:
    refused(dumped({**LEGACY, "task_id": value}), NotTheProtocol, "task_id")
    refused(dumped({**NEW, "id": value}), NotTheProtocol, "id")


@pytest.mark.parametrize("word", ["succeed", "succeeded"])
@pytest.mark.parametrize("spell", [str, str.upper, str.title, str.capitalize])
def test_a_status_is_recognised_in_any_letter_case_and_either_spelling(
    word: str, spell: Any
) -> None:
    for document in ({**LEGACY, "task_status": spell(word)}, {**NEW, "status": spell(word)}):
        event = parse(dumped(document))
        assert (event.status, len(event.media), event.dropped) == (Status.SUCCEEDED, 1, ())


@pytest.mark.parametrize("word", ["submitted", "processing", "failed"])
def test_each_other_status_is_recognised_in_any_letter_case(word: str) -> None:
    for spelled in (word, word.upper(), word.title()):
        for document in ({**LEGACY, "task_status": spelled}, {**NEW, "status": spelled}):
            assert parse(dumped(document)).status == word


NO_STATUSES: list[Any] = [
    None,
    True,
    0,
    1.5,
    "",
    "completed",
    "pending",
    "success",
    "COMPLETED",
    [],
    {},
]
NO_STATUSES += ["succeed\0", "suc\u200bceed", "\u0455ucceed", " succeed", ["succeed"]]


@pytest.mark.parametrize("value", NO_STATUSES, ids=ascii)
def test_a_status_that_kling_does_not_have_is_refused(value: object) -> None:
    refused(dumped({**LEGACY, "task_status": value}), NotTheProtocol, "task_status")
    refused(dumped({**NEW, "status": value}), NotTheProtocol, "status")


@pytest.mark.parametrize("missing", ["task_id", "task_status"])
def test_a_body_without_identity_or_status_is_refused(missing: str) -> None:
    document = {key: value for key, value in LEGACY.items() if key != missing}
    refused(dumped(document), NotTheProtocol, missing)


@pytest.mark.parametrize("key", ["id", "status", "outputs", "billing", "data", "timestamp", "code"])
def test_an_additional_key_does_not_change_the_dialect_of_an_old_message(key: str) -> None:
    event = parse(dumped({**LEGACY, key: "x"}))
    assert replace(event, unknown={}) == parse(dumped(LEGACY))


@pytest.mark.parametrize("key", ["task_id", "task_status", "task_result", "data", "timestamp"])
def test_an_additional_key_does_not_change_the_dialect_of_a_new_message(key: str) -> None:
    event = parse(dumped({**NEW, key: "x"}))
    assert replace(event, unknown={}) == parse(dumped(NEW))


def test_modellix_is_equally_tolerant() -> None:
    data = {"task_id": 7, "status": "SUCCESS", "result": {"resources": [None, URL, {"url": 7}]}}
    event = read(dumped({"code": 0, "data": data}), Source.QUERY, "modellix")
    assert (event.provider_task_id, event.status) == ("7", Status.SUCCEEDED)
    assert [media.url for media in event.media] == [URL]
    assert event.dropped == (
        "data.result.resources[0]: expected an object or a URL",
        "data.result.resources[2].url: expected a URL",
    )


def test_appypie_is_equally_tolerant_in_callbacks_and_responses() -> None:
    for one in DECORATED[:-1]:  # the last one belongs to Kling's new dialect
        raw = dumped(one["body"])
        event = read(raw, provider="appypie")
        assert event == read(wrapped(raw), Source.QUERY, "appypie")
        assert event == replace(parse(raw), provider="appypie")


# -- bytes

REASON = b'"task_status_msg": ""'


def with_reason(inside: bytes) -> bytes:
    return dumped(LEGACY).replace(REASON, b'"task_status_msg": "%s"' % inside)


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        (b"a\nb", "a\nb"),
        (b"a\tb", "a\tb"),
        (b"a\x1b[31mb", "a\x1b[31mb"),
        (b"a\0b", "a\ufffdb"),
        (b"a\\u0000b", "a\ufffdb"),
        (b"a\\\\u0000b", "a\\u0000b"),
        (b"a\\ud83db", "a\ufffdb"),
        (b"a\\ude00b", "a\ufffdb"),
        (b"a\\ude00\\ud83db", "a\ufffd\ufffdb"),
        (b"a\\ud83d\\ude00b", "a\U0001f600b"),
        (b"caf\xe9", "caf\ufffd"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"a\xed\xa0\x80b", "a\ufffd\ufffd\ufffdb"),
        ("é €".encode(), "é €"),
    ],
)
def test_characters_that_cannot_be_stored_are_replaced(inside: bytes, reason: str) -> None:
    event = parse(with_reason(inside))
    assert (event.reason, event.dropped) == (reason, ())
    assert storable(event)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_body_may_have_any_encoding_of_json(encoding: str) -> None:
    raw = json.dumps({**LEGACY, "task_status_msg": "é €"}, ensure_ascii=False).encode(encoding)
    assert parse(raw, encoding) == replace(parse(dumped(LEGACY)), reason="é €")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_body_may_begin_with_a_byte_order_mark(encoding: str) -> None:
    assert read(json.dumps(LEGACY).encode(encoding)) == parse(dumped(LEGACY))
    response = json.dumps({"code": 0, "data": LEGACY}).encode(encoding)
    assert read(response, Source.QUERY) == parse(dumped(LEGACY))


@pytest.mark.parametrize("levels", [40, 150])
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_deep_nesting_in_an_unused_part_is_ignored(levels: int, pair: str) -> None:
    opening = '{"a": ' if pair == "{}" else "["
    deep = f"{opening * levels}1{pair[1] * levels}".encode()
    plain = parse(dumped(LEGACY))
    for raw in (
        dumped(LEGACY)[:-1] + b', "n": ' + deep + b"}",
        dumped(LEGACY).replace(b'"index": 0', b'"index": 0, "n": ' + deep),
    ):
        event = parse(raw)
        assert replace(event, unknown={}) == replace(plain, unknown={})


@pytest.mark.parametrize("levels", [1_000, 100_000])
@pytest.mark.parametrize("closed", [True, False])
def test_nesting_that_no_parser_should_accept_is_refused(levels: int, closed: bool) -> None:
    deep = b"[" * levels + b"]" * levels * closed
    refused(dumped(LEGACY)[:-1] + b', "n": ' + deep + b"}", NotJson, "nested|not JSON")


# -- repeated keys


@pytest.mark.parametrize("value", ['"p1"', '"p2"', "7"])
def test_a_repeated_id_is_refused(value: str) -> None:
    more = value.encode()
    refused(
        dumped(LEGACY)[:-1] + b', "task_id": ' + more + b"}", NotTheProtocol, "task_id: Repeated"
    )
    refused(dumped(NEW)[:-1] + b', "id": ' + more + b"}", NotTheProtocol, "id: Repeated")
    escaped = rb', "task\u005fid": ' + more + b"}"
    refused(dumped(LEGACY)[:-1] + escaped, NotTheProtocol, "task_id: Repeated")


@pytest.mark.parametrize("value", ['"succeed"', '"failed"', "null"])
def test_a_repeated_status_is_refused(value: str) -> None:
    more = value.encode()
    refused(dumped(LEGACY)[:-1] + b', "task_status": ' + more + b"}", NotTheProtocol, "task_status")
    refused(dumped(NEW)[:-1] + b', "status": ' + more + b"}", NotTheProtocol, "status: Repeated")


@pytest.mark.parametrize("key", ["code", "data"])
@pytest.mark.parametrize("provider", ["kling", "appypie"])
def test_a_response_that_repeats_its_code_or_data_is_refused(key: str, provider: str) -> None:
    more = {"code": b', "code": 1201}', "data": b', "data": {}}'}[key]
    for source in (Source.QUERY, Source.CREATE):
        with pytest.raises(NotTheProtocol, match="repeated"):
            read(wrapped(dumped(LEGACY))[:-1] + more, source, provider)


@pytest.mark.parametrize("code", [b'"0"', b'" 0 "', b"0.0"])
@pytest.mark.parametrize("provider", ["kling", "appypie"])
def test_the_code_of_a_response_may_be_a_string(code: bytes, provider: str) -> None:
    sent = wrapped(dumped(LEGACY))
    written = sent.replace(b'"code": 0', b'"code": ' + code, 1)
    assert written != sent
    for source in (Source.QUERY, Source.CREATE):
        assert read(written, source, provider) == read(sent, source, provider)


@pytest.mark.parametrize("code", [b'"1201"', b'"00x"', b'""', b"null", b"0.5", b"[0]", b"1e400"])
def test_any_other_code_is_not_a_success(code: bytes) -> None:
    written = wrapped(dumped(LEGACY)).replace(b'"code": 0', b'"code": ' + code, 1)
    with pytest.raises(NotTheProtocol):
        read(written, Source.QUERY, "kling")


def test_any_other_repeated_key_is_named_if_it_is_used() -> None:
    plain = parse(dumped(LEGACY))
    event = parse(dumped(LEGACY)[:-1] + b', "task_status_msg": "no"}')
    assert event == replace(
        plain, reason="no", dropped=("task_status_msg: repeated, and the last one is used",)
    )
    event = parse(dumped(LEGACY).replace(b'"index": 0', b'"index": 1, "index": 0'))
    assert event.media == plain.media
    assert event.dropped == ("task_result.images[0].index: repeated, and the last one is used",)
    event = parse(dumped(LEGACY).replace(b'"images": ', b'"images": [], "images": '))
    assert event.media == plain.media
    assert event.dropped == ("task_result.images: repeated, and the last one is used",)
    event = parse(dumped(LEGACY)[:-1] + b', "novelty": {"a": 1, "a": 2}, "novelty": 2}')
    assert replace(event, unknown={}) == plain


def test_our_own_id_is_ignored_if_it_is_repeated() -> None:
    twice = b'"task_info": {"external_task_id": "a", "external_task_id": "b"}'
    event = parse(dumped(LEGACY).replace(b'"task_info": {}', twice))
    assert event.external_task_id is None
    assert event.dropped == ("task_info.external_task_id: repeated",)


def test_the_reason_of_a_refusal_can_be_stored() -> None:
    raw = rb'{"code": 1201, "message": "no\u0000 \ud83d"}'
    for provider in ("kling", "appypie"):
        assert read(raw, Source.CREATE, provider).reason == "refused: 1201 no\ufffd \ufffd"
        with pytest.raises(NotTheProtocol) as refusal:
            read(raw, Source.QUERY, provider)
        assert "no\ufffd \ufffd" in str(refusal.value)
    raw = raw.replace(b"1201", b"400")
    assert read(raw, Source.CREATE, "modellix").reason == "refused: 400 no\ufffd \ufffd"


# -- the parts


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 1}',
        b'{"a": "\\ud83d"}',
        b'{"a": "\\u0000"}',
        b'{"a": "\n"}',
        b'{"a": "\xe9"}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a": ' + b"9" * 101 + b"}",
    ],
)
def test_requests_to_our_own_api_are_parsed_strictly(raw: bytes) -> None:
    with pytest.raises(NotJson):
        decode_strictly(raw)


@given(st.text(st.characters(exclude_categories=())))
def test_cleaned_text_can_be_stored_and_is_otherwise_unchanged(written: str) -> None:
    found = cleaned(written)
    assert "\0" not in found
    found.encode()
    assert identity(written) in (None, written)
    if "\0" not in written and not any("\ud800" <= one <= "\udfff" for one in written):
        assert found == written


@given(st.floats() | st.integers() | st.text() | st.booleans() | st.none())
def test_no_value_of_an_instant_or_amount_causes_an_error(value: object) -> None:
    found = instant(value)
    assert found is None or 946_684_800_000 <= found <= 32_503_680_000_000
    written = amount(value)
    assert written is None or "\0" not in written
