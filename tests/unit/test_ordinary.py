"""Whatever is read as an ordinary callback, gunicorn's parser and Flask read the same."""

from __future__ import annotations

import re
from http.client import HTTPResponse
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser, wsgi
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.wrappers import Request

from receiver.signing import mint
from receiver.tasks import Outcome
from receiver.web.ordinary import LONGEST_BODY, answer, read
from tests.support.samples import SECRET, body

TOKEN = mint(SECRET, "kling", "task-1")
LINE = f"POST /callbacks/kling/task-1/{TOKEN} HTTP/1.1"
BODY = body()
NEEDED = {"Host": "receiver:8000", "Content-Type": "application/json"}


def request(*more: str, line: str = LINE, sent: bytes = BODY, **other: str) -> bytes:
    """A callback on the wire; `other` headers instead of those that are needed, `_` for `-`."""
    given_ = {name.replace("_", "-"): value for name, value in other.items()}
    headers = {**NEEDED, "Content-Length": str(len(sent)), **given_}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items()), *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + sent


def by_gunicorn(data: bytes) -> tuple[Request, bytes]:
    """What the long way makes of it; and what it leaves for the next request."""
    pieces = [data[start : start + 8192] for start in range(0, len(data), 8192)]
    parser = RequestParser(Config(), iter(pieces), ("127.0.0.1", 1))
    sock: Any = SimpleNamespace()
    parsed = next(parser)
    _, environ = wsgi.create(parsed, sock, ("127.0.0.1", 1), ("127.0.0.1", 8000), Config())
    seen = Request(environ)
    seen.get_data()
    return seen, bytes(parser.unreader.take_buffered() + b"".join(parser.unreader.iter or ()))


def assert_same(data: bytes) -> None:
    found = read(data)
    assert found is not None
    seen, rest = by_gunicorn(data)
    assert seen.method == "POST"
    assert seen.full_path == f"/callbacks/{found.provider}/{found.task_id}/{found.token}?"
    assert dict(seen.headers) == found.headers
    assert (seen.get_data(), seen.is_json) == (found.body, True)
    assert rest == data[found.size :]


ORDINARY = {
    "as kling sends it": request("User-Agent: Go-http-client/1.1", "Accept-Encoding: gzip"),
    "with another behind it": request() + request(),
    "odd spelling": request("X-SOMETHING: a  b ", "x-other:", "x-:-"),
    "spaces": request(Host="  receiver  ", Content_Type="  application/json; charset=UTF-8 "),
    "a connection that stays": request("Connection: Keep-Alive"),
    "the last one": request("Connection: close"),
    "by a proxy": request("X-Forwarded-For: 203.0.113.9, 10.0.0.1", "X-Forwarded-Proto: https"),
}
EXTRAORDINARY = {
    "nothing": b"",
    "another method": request(line=LINE.replace("POST", "PUT")),
    "a method in small letters": request(line=LINE.replace("POST", "post")),
    "an older HTTP": request(line=LINE.replace("1.1", "1.0")),
    "a query": request(line=LINE.replace(" HTTP", "?a=b HTTP")),
    "an escape": request(line=LINE.replace("task-1", "task%2D1")),
    "two slashes": request(line=LINE.replace("/kling", "//kling")),
    "an absolute address": request(line=LINE.replace("/callbacks", "http://receiver/callbacks")),
    "without a token": request(line=LINE.replace("/" + TOKEN, "")),
    "a short token": request(line=LINE.replace(TOKEN, TOKEN[1:])),
    "two spaces": request(line=LINE.replace(" HTTP", "  HTTP")),
    "bare line feeds": request().replace(b"\r\n", b"\n"),
    "a bare line feed": request("X-A: b\nX-B: c"),
    "a bare carriage return": request("X-A: b\rX-B: c"),
    "a folded header": request("X-A: b\r\n c"),
    "a space before the colon": request("X-A : b"),
    "no colon": request("X-A"),
    "no name": request(": b"),
    "an underscore": request("X_A: b"),
    "a tab": request("X-A:\tb"),
    "not ASCII": request("X-A: \xe9"),
    "NUL": request("X-A: \0"),
    "two lengths": request("Content-Length: 5"),
    "the same length twice": request(f"content-length: {len(BODY)}"),
    "no length": request().replace(b"Content-Length", b"X-Length"),
    "an odd length": request(Content_Length=f"+{len(BODY)}"),
    "a length of two": request(Content_Length=f"{len(BODY)}, {len(BODY)}"),
    "chunks": request("Transfer-Encoding: chunked"),
    "packed": request("Content-Encoding: gzip"),
    "a welcome first": request("Expect: 100-continue"),
    "another protocol": request("Connection: upgrade", "Upgrade: h2c"),
    "headers of a hop": request("Connection: close, x-a"),
    "no host": request().replace(b"Host", b"X-Host"),
    "an odd host": request(Host="receiver/x"),
    "two hosts": request("Host: other"),
    "a header twice": request("X-A: b", "x-a: c"),
    "another type": request(Content_Type="text/plain"),
    "no type": request().replace(b"Content-Type", b"X-Type"),
    "no body": request(sent=b""),
    "a long body": request(sent=b"x" * (LONGEST_BODY + 1)),
    "many headers": request(*(f"X-{number}: a" for number in range(40))),
    "a long header": request("X-A: " + "b" * 4001),
}


@pytest.mark.parametrize("data", ORDINARY.values(), ids=ORDINARY)
def test_the_ordinary_is_read_as_the_long_way_reads_it(data: bytes) -> None:
    assert_same(data)


@pytest.mark.parametrize("data", EXTRAORDINARY.values(), ids=EXTRAORDINARY)
def test_all_else_goes_the_long_way(data: bytes) -> None:
    assert read(data) is None


def test_not_before_its_last_byte() -> None:
    data = request()
    assert not [end for end in range(len(data)) if read(data[:end])]


@given(
    where=st.integers(0, len(request()) - len(BODY)),
    what=st.sampled_from([*b" \t\r\n:;,/%?\x00\x7f\xffaA0-_", None]),
    more=st.lists(st.sampled_from(["Connection: close", "X-A: b", "x-a: c", "Cookie: a=b"])),
)
@example(where=0, what=ord("P"), more=[])
def test_a_byte_changed_or_missing_is_never_read_otherwise(
    where: int, what: int | None, more: list[str]
) -> None:
    data = bytearray(request(*more))
    data[where : where + 1] = b"" if what is None else bytes([what])
    if read(data) is not None:
        assert_same(bytes(data))


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("keeps", [True, False])
def test_the_answer_is_whole(outcome: Outcome, keeps: bool) -> None:
    sent = answer(outcome, "an-id", keeps=keeps)
    sock: Any = SimpleNamespace(makefile=lambda _: BytesIO(sent))
    response = HTTPResponse(sock)
    response.begin()
    assert response.status == 200
    assert re.fullmatch(rb'\{"outcome":"[a-z]+"\}\n', response.read())
    assert response.isclosed()
    assert response.will_close is not keeps
    assert response.headers["X-Request-Id"] == "an-id"
