"""A request that is refused before its body was read gets one response, the last of its connection.

Otherwise a part of the body could be handled as the next request, or get a second response. The
tests send another request after each body, to the default worker and to gunicorn's own worker.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from receiver.signing.callback_urls import mint
from receiver.text.limits import MAX_BODY
from tests.support.gunicorn_fronts import Front, shared_fronts
from tests.support.samples import SECRET

API_TOKEN = "a-token-for-the-tests"
TOKEN = mint(SECRET, "kling", "t")
NEXT = b"GET /healthz HTTP/1.1\r\nHost: receiver\r\n\r\n"
ROUTES = {
    "callback": f"/callbacks/kling/t/{TOKEN}",
    "wrong token": f"/callbacks/kling/t/{TOKEN[:-4]}AAAA",
    "signed": "/callbacks/kling",
    "unknown provider": "/callbacks/nobody/t/x",
    "doctor": "/callbacks/doctor/n/x",
    "unknown path": "/nowhere",
    "API": "/api/tasks",
    "API with token": "/api/tasks",
    "redelivery with token": "/api/deliveries/redeliver",
    "health": "/healthz",
    "readiness": "/readyz",
    "metrics": "/metrics",
    "login": "/dashboard/login",
    "page": "/dashboard/tasks",
    "style sheet": "/dashboard/static/dashboard.css",
}
METHODS = ("POST", "GET", "PUT")
MALFORMED_CHUNKS = {
    "no number": b"zz\r\nabc\r\n0\r\n\r\n",
    "a negative number": b"-1\r\nabc\r\n0\r\n\r\n",
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk that is too long": b"3\r\nabcd\r\n0\r\n\r\n",
    "a second size": b"3\r\nabc\r\nzz\r\n0\r\n\r\n",
    "line feeds alone": b"3\nabc\n0\n\n",
    "a trailer without a colon": b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
    "a trailer that changes the request": b"3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
    "a request in place of a body": NEXT,
}
WELL_FORMED = {
    "a length": b"Content-Length: 3\r\n\r\nabc",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "an extension": b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
    "a trailer": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    "a request as its body": b"Content-Length: %d\r\n\r\n%b" % (len(NEXT), NEXT),
    "100 Continue, not waited for": b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
}


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Front, Front]]:
    environment = {
        "API_TOKEN": API_TOKEN,
        "DASHBOARD_PASSWORD": "a password for the tests",
        "KLING_WEBHOOK_SECRETS": "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=",
    }
    with shared_fronts(tmp_path_factory.mktemp("fronts"), environment) as (_, found):
        yield found


def head(method: str, route: str) -> bytes:
    more = f"Authorization: Bearer {API_TOKEN}\r\n" if route.endswith("with token") else ""
    return f"{method} {ROUTES[route]} HTTP/1.1\r\nHost: receiver\r\n{more}".encode()


def cases(bodies: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for method in METHODS:
        for route in ROUTES:
            for name, body in bodies.items():
                yield f"{method}, {route}, {name}", head(method, route) + body


def responses(front: Front, number: int, sent: bytes) -> tuple[list[int], bytes]:
    """Return the statuses of all responses until the server closes, and the received bytes."""
    with front.connected(number) as (connection, file):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = file.read()
    statuses = [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
    return [status for status in statuses if status != 100], received


def test_a_malformed_body_gets_one_response_and_closes(fronts: tuple[Front, Front]) -> None:
    start = b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = {name: start + raw for name, raw in MALFORMED_CHUNKS.items()}
    for number, (name, request) in enumerate(cases(chunks)):
        for front in fronts:
            statuses, received = responses(front, number, request + NEXT)
            assert len(statuses) == 1, (name, front.name, received)
            assert b"\r\nconnection: close\r\n" in received.lower(), (name, front.name)


def test_a_body_that_is_too_long_closes_if_it_was_not_read(fronts: tuple[Front, Front]) -> None:
    length = MAX_BODY + 1000
    raw = b"Content-Length: %d\r\n\r\n" % length + (NEXT * (length // len(NEXT) + 1))[:length]
    unread = [route for route in ROUTES if not route.endswith("with token")]
    for number, route in enumerate(unread):
        for front in fronts:
            statuses, received = responses(front, number, head("POST", route) + raw)
            assert len(statuses) == 1, (route, front.name, received)
            assert b"\r\nconnection: close\r\n" in received.lower(), (route, front.name)


def test_the_request_after_a_well_formed_body_is_the_next_one(
    fronts: tuple[Front, Front],
) -> None:
    for number, (name, request) in enumerate(cases(WELL_FORMED)):
        for front in fronts:
            statuses, received = responses(front, number, request + NEXT)
            assert len(statuses) == 2, (name, front.name, received)
            assert statuses[1] == 200, (name, front.name, received)


def test_a_client_that_expects_continue_gets_one_response(fronts: tuple[Front, Front]) -> None:
    for number, route in enumerate(ROUTES):
        for front in fronts:
            fields = b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
            statuses, received = responses(front, number, head("POST", route) + fields)
            assert len(statuses) <= 1, (route, front.name, received)
            assert b"connection: keep-alive" not in received.lower(), (route, front.name)
