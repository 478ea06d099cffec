"""The interpretation of each response in Kling's envelope."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from submitter.client import Answer
from submitter.errors import (
    NotFoundAtProvider,
    OutcomeUnknown,
    ProviderError,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
    WrongInput,
)
from submitter.providers import kling_envelope
from submitter.providers.answers import Call
from submitter.providers.kling import VENDOR
from submitter.text import readable

PAYLOADS = Path(__file__).parents[2] / "payloads" / "kling"
HTTP_STATUS = {
    1000: 401, 1001: 401, 1002: 401, 1003: 401, 1004: 401,
    1100: 429, 1101: 429, 1102: 429, 1103: 403, 1200: 400, 1201: 400, 1202: 404, 1203: 404,
    1300: 400, 1301: 400, 1302: 429, 1303: 429, 1304: 429, 5000: 500, 5001: 503, 5002: 504,
}  # fmt: skip
ON_CREATE: dict[int, type[ProviderError]] = {
    **dict.fromkeys((1000, 1001, 1002, 1003, 1004, 1100, 1101, 1102, 1103, 1304), WrongAccount),
    **dict.fromkeys((1200, 1201, 1202, 1203, 1300, 1301), WrongInput),
    **dict.fromkeys((1302, 1303), TryLater),
    **dict.fromkeys((5000, 5001, 5002), OutcomeUnknown),
}
ON_FETCH = ON_CREATE | {
    **dict.fromkeys((1201, 1203), NotFoundAtProvider),
    **dict.fromkeys((5000, 5001, 5002), TryLater),
}


def data_of(answer: Answer, call: Call) -> Any:
    return kling_envelope.data_of(VENDOR, answer, call)


def refused(code: int, **headers: str) -> Answer:
    document = {"code": code, "message": "what Kling says", "request_id": "r-1"}
    return Answer(HTTP_STATUS[code], headers, json.dumps(document).encode())


@pytest.mark.parametrize("code", HTTP_STATUS)
@pytest.mark.parametrize(("call", "meaning"), [(Call.CREATE, ON_CREATE), (Call.FETCH, ON_FETCH)])
def test_every_code_has_one_meaning(
    code: int, call: Call, meaning: dict[int, type[ProviderError]]
) -> None:
    answer = refused(code)
    with pytest.raises(ProviderError) as caught:
        data_of(answer, call)
    error = caught.value
    assert type(error) is meaning[code]
    assert (error.code, error.http_status) == (code, HTTP_STATUS[code])
    assert (error.request_id, error.body) == ("r-1", answer.body)
    assert f"Kling {code}: what Kling says" in str(error)


def test_retry_after_is_respected_although_it_is_not_documented() -> None:
    with pytest.raises(TryLater) as caught:
        data_of(refused(1303, **{"Retry-After": "7"}), Call.CREATE)
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("name", "kind"), [("error-1201.json", WrongInput), ("error-1303.json", TryLater)]
)
def test_the_code_decides_even_with_http_200(name: str, kind: type[ProviderError]) -> None:
    with pytest.raises(kind):
        data_of(Answer(200, {}, (PAYLOADS / name).read_bytes()), Call.CREATE)


def test_code_0_is_success_whatever_the_http_status() -> None:
    body = (PAYLOADS / "create-try-on.json").read_bytes()
    assert data_of(Answer(500, {}, body), Call.CREATE)["task_id"] == "CjikY2gHPbcAAAAABI5n9g"


@pytest.mark.parametrize("written", [b'"0"', b"0.0"])
def test_an_unusual_notation_of_a_code_loses_no_task(written: bytes) -> None:
    body = (PAYLOADS / "create-try-on.json").read_bytes()
    other = re.sub(rb'"code": *0', b'"code": ' + written, body)
    assert other != body
    assert data_of(Answer(200, {}, other), Call.CREATE) == data_of(
        Answer(200, {}, body), Call.CREATE
    )
    with pytest.raises(TryLater):
        data_of(Answer(429, {}, b'{"code": "1303", "data": null}'), Call.CREATE)


def test_the_error_for_a_path_that_does_not_exist_names_the_base_url() -> None:
    body = (PAYLOADS / "not-found-framework.json").read_bytes()
    for call in Call:
        with pytest.raises(UnexpectedAnswer, match=r"No message available.*KLING_BASE_URL"):
            data_of(Answer(404, {}, body), call)


@pytest.mark.parametrize(
    ("status", "body", "on_create", "on_fetch"),
    [
        (200, b"<html>", OutcomeUnknown, UnexpectedAnswer),
        (200, b"[]", OutcomeUnknown, UnexpectedAnswer),
        (200, b'{"code": "0"}', OutcomeUnknown, UnexpectedAnswer),
        (200, b'{"code": false, "data": {}}', OutcomeUnknown, UnexpectedAnswer),
        (200, b'{"code": NaN}', OutcomeUnknown, UnexpectedAnswer),
        (200, b'{"code": 0, "code": 0}', OutcomeUnknown, UnexpectedAnswer),
        (200, b"", OutcomeUnknown, UnexpectedAnswer),
        (302, b"", UnexpectedAnswer, UnexpectedAnswer),
        (408, b"", OutcomeUnknown, UnexpectedAnswer),
        (413, b"<html>", UnexpectedAnswer, UnexpectedAnswer),
        (502, b"<html>", OutcomeUnknown, TryLater),
        (500, b'{"code": 5999}', OutcomeUnknown, TryLater),
        (400, b'{"code": 1999}', UnexpectedAnswer, UnexpectedAnswer),
    ],
)
def test_an_undocumented_response_is_never_treated_as_a_refused_create(
    status: int, body: bytes, on_create: type[ProviderError], on_fetch: type[ProviderError]
) -> None:
    for call, kind in ((Call.CREATE, on_create), (Call.FETCH, on_fetch)):
        with pytest.raises(ProviderError) as caught:
            data_of(Answer(status, {}, body), call)
        assert type(caught.value) is kind


def test_the_error_for_a_page_of_a_proxy_contains_its_text() -> None:
    page = b"<html><title>502 Bad Gateway</title><body>nginx</body></html>"
    with pytest.raises(TryLater, match=r"\(an HTML page: 502 Bad Gateway: nginx\)"):
        data_of(Answer(502, {}, page), Call.FETCH)


@pytest.mark.parametrize("task_id", ["828312345678901234", 828_312_345_678_901_234])
def test_an_id_may_be_an_integer(task_id: object) -> None:
    body = json.dumps({"code": 0, "data": {"task_id": task_id, "task_info": []}}).encode()
    answer = Answer(200, {}, body)
    data = data_of(answer, Call.FETCH)
    kling_envelope.check_identity(VENDOR, answer, data, "828312345678901234")
    with pytest.raises(UnexpectedAnswer, match="described another one"):
        kling_envelope.check_identity(VENDOR, answer, data, "828312345678901235")


def test_texts_from_kling_contain_no_control_characters() -> None:
    assert readable("a\x1b[31mred\n\nline\u202e") == "a [31mred line"
    assert len(readable("x" * 5000)) == 300
    assert readable(None) == ""
