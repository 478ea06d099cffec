"""Each slow client and each malformed request uses one connection, for a limited time."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from receiver.text.limits import (
    CLOSE_TIMEOUT,
    LONG_REQUEST_TIMEOUT,
    MAX_HEAD,
    MAX_OVERHEAD,
    MAX_TRAILERS,
    MIN_READ_RATE,
    REQUEST_TIMEOUT,
    STALL_TIMEOUT,
    WRITE_TIMEOUT,
)
from receiver.web.server import protocol, request_parser
from receiver.web.server.connection_slots import RequestLimits
from receiver.web.server.protocol import MAX_BUFFERED, TLS_WITHOUT_TLS_PORT, TOO_SLOW
from tests.support.log_records import LogRecords
from tests.support.scripted_connection import CLIENT, Client, ScriptedServer, in_pieces

PATH = "/callbacks/kling/t/x"
HEAD = b"POST /callbacks/kling/t/x HTTP/1.1\r\nHost: receiver\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: receiver\r\n\r\n"
POST = HEAD + b"Content-Length: 5\r\n\r\n12345"
CHUNK = b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MOMENT = 1.0  # seconds: more than the time between two checks of the connections
SLOW = (CLIENT[0], TOO_SLOW, "POST", PATH)
HALF_REQUESTS = {
    "half a method": b"PO",
    "half a path": HEAD[:20],
    "half the headers": HEAD,
    "half a body": POST[:-1],
    "half a chunk": CHUNKED + b"5\r\n123",
    "half a size": CHUNKED + b"1",
    "no last chunk": CHUNKED + b"5\r\n12345\r\n",
    "half a trailer": CHUNKED + b"0\r\nX-Sum",
}


@dataclass
class Request:
    """A request, as the application received it."""

    scope: Any
    body: bytes = b""
    has_left: bool = False  # the client disconnected before the body had arrived


@dataclass
class Application:
    """Reads the body, waits while `holds`, and responds with the body or with `response`."""

    holds: bool = False
    reads: bool = True
    is_long: bool = False  # whether a long body is expected, which an authenticated client may send
    response: bytes | None = None
    parts: int = 1  # the number of copies of the response, sent one after the other
    requests: list[Request] = field(default_factory=list)
    held: list[asyncio.Event] = field(default_factory=list)
    left: int = 0  # remaining parts of the response

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        self.requests.append(request)
        if self.is_long:
            scope["state"]["connection"].allow_long_body()
        while self.reads:
            message = await receive()
            if message["type"] == "http.disconnect":
                request.has_left = True
                return
            request.body += message["body"]
            if not message["more_body"]:
                break
        if self.holds:
            self.held.append(asyncio.Event())
            await self.held[-1].wait()
        sent = request.body if self.response is None else self.response
        length = str(len(sent) * self.parts).encode()
        headers = [(b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in range(self.parts, 0, -1):
            self.left = part
            await send({"type": "http.response.body", "body": sent, "more_body": part > 1})

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.requests]


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def server(application: Application) -> Iterator[ScriptedServer]:
    server = ScriptedServer(application)
    yield server
    server.close()


@pytest.fixture
def client(server: ScriptedServer) -> Client:
    return server.connect()


def statuses(client: Client) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", client.received)]


def release(application: Application, client: Client) -> None:
    """Let the application respond to the waiting request."""
    application.held.pop(0).set()
    client.loop.settle()


# -- a request is handled once it has arrived, however its bytes are divided

WHOLE = {
    "no body": (HEAD + b"\r\n", b""),
    "no header": (b"GET / HTTP/1.0\r\n\r\n", b""),
    "an empty line before it": (b"\r\n" + HEAD + b"\r\n", b""),
    "a body": (POST, b"12345"),
    "a length in capitals": (HEAD + b"CONTENT-LENGTH:5 \r\n\r\n12345", b"12345"),
    "a length in the body only": (
        HEAD + b"Content-Length: 23\r\n\r\n\r\ncontent-length: 500\r\n",
        b"\r\ncontent-length: 500\r\n",
    ),
    "chunks": (
        CHUNKED + b"5\r\n12345\r\nA;name=value\r\n1234567890\r\n0\r\n\r\n",
        b"123451234567890",
    ),
    "a message end within a chunk": (
        CHUNKED + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
        b"\r\n0\r\n\r\n",
    ),
    "trailers": (CHUNKED + b"5\r\n12345\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", b"12345"),
}


@pytest.mark.parametrize(("request_", "body"), WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_request_is_handled_with_its_last_byte_and_not_before(
    client: Client, application: Application, request_: bytes, body: bytes, size: int
) -> None:
    *pieces, last = in_pieces(request_, size)
    client.send(*pieces)
    assert client.received == b""
    client.send(last)
    assert statuses(client) == [200]
    assert application.bodies == [body]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_pipelined_requests_are_handled_in_order(
    client: Client, application: Application, size: int
) -> None:
    posts = b"".join(POST.replace(b"12345", b"%05d" % number) for number in range(20))
    client.send(*in_pieces(posts, size))
    while client.transport.is_paused:
        client.send()
    assert statuses(client) == [200] * 20
    assert re.findall(rb"\r\n\r\n(\d{5})", client.received) == application.bodies


def test_only_a_few_of_many_pipelined_requests_are_parsed_in_advance(
    client: Client, application: Application
) -> None:
    """Otherwise, one client could block the event loop for a long time, and fill the memory."""
    application.holds = True
    requests = [b"GET /%05d HTTP/1.1\r\n\r\n" % number for number in range(2000)]
    pieces = [b"".join(requests[at : at + 500]) for at in range(0, 2000, 500)]
    client.send(*pieces)
    connection = client.transport.protocol
    waiting, unparsed = [], []
    while application.held:
        waiting.append(len(connection.pipeline))
        unparsed.append(len(connection.flow.unparsed))
        release(application, client)
        client.send()
    assert max(waiting) <= 2 * protocol.PARSED_AT_ONCE / len(requests[0]) < 500
    assert max(unparsed) <= len(pieces[0])
    assert [request.scope["path"] for request in application.requests] == [
        f"/{number:05}" for number in range(2000)
    ]
    assert statuses(client) == [200] * 2000
    client.send(POST)  # and reading resumes
    release(application, client)
    assert application.bodies[-1] == b"12345"


def test_many_chunks_are_not_parsed_in_one_iteration_of_the_event_loop(
    client: Client, application: Application
) -> None:
    """Otherwise ten such clients could block the loop for 200 ms."""
    client.transport.protocol.data_received(CHUNKED + b"1\r\nx\r\n" * 20_000)
    assert len(client.transport.protocol.flow.unparsed) > 100_000
    assert client.transport.is_paused
    client.send(b"0\r\n\r\n")
    assert statuses(client) == [200]
    assert application.bodies == [b"x" * 20_000]


def test_long_headers_are_parsed_completely_in_several_iterations(client: Client) -> None:
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 8000) for number in range(3))
    client.send(GET[:-2] + fields, b"\r\n")
    assert statuses(client) == [200]


def test_a_body_is_not_collected_for_an_application_that_does_not_read_it(
    client: Client, application: Application
) -> None:
    application.reads, application.holds = False, True
    piece = b"x" * 100_000
    client.send(HEAD + b"Content-Length: 1000000\r\n\r\n", *[piece] * 10)
    assert client.transport.is_paused
    assert len(client.transport.protocol.cycle.body) <= len(piece)


def test_trailers_never_become_headers(client: Client, application: Application) -> None:
    client.send(CHUNKED + b"1\r\n1\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n" + GET)
    for request in application.requests:
        assert request.scope["headers"][0] == (b"host", b"receiver")
        assert not {b"x-forwarded-for"} & {name for name, _ in request.scope["headers"]}
    assert statuses(client) == [200, 200]


@pytest.mark.parametrize("name", sorted(request_parser.FORBIDDEN_TRAILERS))
def test_a_trailer_that_would_change_the_request_is_refused(
    client: Client, application: Application, name: bytes
) -> None:
    client.send(CHUNKED + b"1\r\n1\r\n0\r\n" + name.title() + b": 1\r\n\r\n")
    assert application.requests[0].scope["state"]["is_incomplete"]
    assert client.is_closed()


def test_spaces_around_a_header_value_are_removed(client: Client, application: Application) -> None:
    client.send(HEAD + b"X-A: \t b c \t \r\nX-B:\r\nX-C: d\r\n\r\n")
    headers = application.requests[0].scope["headers"]
    assert headers[1:] == [(b"x-a", b"b c"), (b"x-b", b""), (b"x-c", b"d")]


# -- a request has to arrive within 20 seconds


@pytest.mark.parametrize("name", HALF_REQUESTS)
def test_a_request_that_does_not_arrive_in_time_is_closed_and_recorded(
    server: ScriptedServer, client: Client, name: str
) -> None:
    client.send(HALF_REQUESTS[name])
    server.loop.pass_time(REQUEST_TIMEOUT - MOMENT)
    assert not client.is_closed()
    assert server.notes == []
    server.loop.pass_time(2 * MOMENT)
    assert client.is_closed()
    ((address, reason, method, path),) = server.notes
    assert (address, reason) == (CLIENT[0], TOO_SLOW)
    assert client.transport.protocol.was_aborted  # the application records nothing more
    assert (method, path) == {"half a method": ("", ""), "half a path": ("POST", PATH[:15])}.get(
        name, ("POST", PATH)
    )


@pytest.mark.parametrize("start", HALF_REQUESTS.values(), ids=HALF_REQUESTS)
def test_further_bytes_do_not_extend_the_time(
    server: ScriptedServer, client: Client, start: bytes
) -> None:
    client.send(start)
    for _ in range(int(REQUEST_TIMEOUT) - 1):
        server.loop.pass_time(1)
        client.send(b"1")
    server.loop.pass_time(2 * MOMENT)
    assert client.is_closed()


def test_empty_lines_do_not_extend_the_time(server: ScriptedServer, client: Client) -> None:
    for _ in range(int(REQUEST_TIMEOUT) + 2):
        client.send(b"\r\n")
        server.loop.pass_time(1)
    assert client.is_closed()


def test_a_second_request_that_does_not_arrive_is_recorded_as_well(
    server: ScriptedServer, client: Client
) -> None:
    client.send(GET, HEAD)
    server.loop.pass_time(REQUEST_TIMEOUT - MOMENT)
    assert not client.is_closed()
    server.loop.pass_time(2 * MOMENT)
    assert client.is_closed()
    assert server.notes == [SLOW]


def test_a_second_request_has_its_full_time_after_the_first_response(
    server: ScriptedServer, client: Client, application: Application
) -> None:
    application.holds = True
    client.send(GET + HEAD)
    server.loop.pass_time(3 * REQUEST_TIMEOUT)  # the application is slow here
    release(application, client)
    server.loop.pass_time(REQUEST_TIMEOUT - MOMENT)
    assert not client.is_closed()
    server.loop.pass_time(2 * MOMENT)
    assert client.is_closed()
    assert server.notes == [SLOW]


def test_without_idle_time_every_response_closes_the_connection_and_announces_it(
    server: ScriptedServer,
) -> None:
    server.config.timeout_keep_alive = 0
    client = server.connect()
    client.send(GET)
    assert statuses(client) == [200]
    assert b"\r\nconnection: close\r\n" in client.received
    assert client.is_closed()


def test_a_connection_without_a_request_is_closed_and_not_recorded(
    server: ScriptedServer, client: Client
) -> None:
    server.loop.pass_time(REQUEST_TIMEOUT + MOMENT)
    assert client.is_closed()
    assert server.notes == []


def test_an_idle_connection_is_closed_and_not_recorded(
    server: ScriptedServer, client: Client
) -> None:
    client.send(GET)
    server.loop.pass_time(server.config.timeout_keep_alive - MOMENT)
    assert not client.is_closed()
    client.send(GET)
    assert statuses(client) == [200, 200]
    server.loop.pass_time(server.config.timeout_keep_alive + MOMENT)
    assert client.is_closed()
    assert server.notes == []


@pytest.mark.parametrize("request_", [GET, POST])
def test_the_handling_of_a_complete_request_has_no_time_limit(
    server: ScriptedServer, client: Client, application: Application, request_: bytes
) -> None:
    application.holds = True
    client.send(request_)
    server.loop.pass_time(10 * REQUEST_TIMEOUT)
    release(application, client)
    assert statuses(client) == [200]
    assert server.notes == []


def test_a_long_body_may_take_120_seconds(
    server: ScriptedServer, client: Client, application: Application
) -> None:
    application.is_long = True
    client.send(HEAD + b"Content-Length: 5000000\r\n\r\n12345")
    server.loop.pass_time(LONG_REQUEST_TIMEOUT - MOMENT)
    assert not client.is_closed()
    server.loop.pass_time(2 * MOMENT)
    assert client.is_closed()
    assert application.requests[0].has_left
    assert server.notes == [SLOW]


def test_a_client_that_disconnects_before_its_long_body_is_read_is_removed(
    server: ScriptedServer, client: Client, application: Application
) -> None:
    """Otherwise an exception would end the time limits of all other connections."""
    application.is_long = True
    client.transport.protocol.data_received(HEAD + b"Content-Length: 5000000\r\n\r\n12345")
    client.leave(ConnectionResetError())
    (request,) = application.requests
    assert server.slots.held == {}
    request.scope["state"]["connection"].allow_long_body()
    assert server.slots.held == {}
    server.loop.pass_time(LONG_REQUEST_TIMEOUT)
    other = server.connect()
    other.send(HEAD)
    server.loop.pass_time(REQUEST_TIMEOUT + MOMENT)
    assert other.is_closed()
    assert server.notes == [SLOW]


# -- invalid requests are refused before they have arrived

ENDLESS_HEADS = {
    "a request line": (b"GET /" + b"x" * MAX_HEAD, 414),
    "a request line with a line break": (b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\n\r\n", 414),
    "a long request line": (b"GET /" + b"x" * 4095 + b" HTTP/1.1\r\n\r\n", 414),
    "one endless header": (HEAD + b"X: " + b"x" * MAX_HEAD + b"x" * 2000, 431),
    "one long header": (HEAD + b"X: " + b"x" * 8190 + b"\r\n\r\n", 431),
    "one endless name": (HEAD + b"x" * MAX_HEAD + b"x" * 2000, 431),
    "many headers": (HEAD + b"X: y\r\n" * 64 + b"\r\n", 431),
    "long headers": (HEAD + (b"X: " + b"x" * 8000 + b"\r\n") * 5, 431),
}


@pytest.mark.parametrize(("start", "status"), ENDLESS_HEADS.values(), ids=ENDLESS_HEADS)
@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_headers_that_are_too_long_are_refused(
    server: ScriptedServer,
    client: Client,
    application: Application,
    start: bytes,
    status: int,
    size: int,
) -> None:
    client.send_in_one_turn(*in_pieces(start, size))
    assert statuses(client) == [status]
    head, _, document = client.received.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in head
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert json.loads(document)["status"] == status
    assert application.requests == []
    ((address, reason, *_),) = server.notes
    assert address == CLIENT[0]
    assert reason.startswith(protocol.NOT_UNDERSTOOD)


@pytest.mark.parametrize("name", ["a long request line", "many headers", "long headers"])
def test_headers_that_are_too_long_are_refused_after_another_request_as_well(
    client: Client, application: Application, name: str
) -> None:
    start, status = ENDLESS_HEADS[name]
    client.send(POST + start + b"\r\n")
    assert statuses(client) == [200, status]
    assert len(application.requests) == 1


def test_headers_of_the_maximum_length_are_accepted(client: Client) -> None:
    line = b"GET /" + b"x" * 4000 + b" HTTP/1.1\r\n"
    headers = [b"X-%d: " % number + b"x" * 8000 + b"\r\n" for number in range(3)]
    headers += [b"Y-%d: y\r\n" % number for number in range(60)]
    client.send(line + b"".join(headers) + b"\r\n")
    assert statuses(client) == [200]


@pytest.mark.parametrize(
    "limits", [RequestLimits(line=0), RequestLimits(fields=0), RequestLimits(field_size=0)]
)
def test_a_limit_of_0_disables_all_limits_except_that_of_all_headers(
    application: Application, limits: RequestLimits
) -> None:
    server = ScriptedServer(application, limits)
    client = server.connect()
    client.send(GET, POST)
    assert statuses(client) == [200, 200]
    client.send(GET[:-2] + b"X: " + b"x" * MAX_HEAD + b"\r\n\r\n")
    assert statuses(client) == [200, 200, 431]
    server.close()


def test_the_headers_of_each_pipelined_request_are_measured_separately(client: Client) -> None:
    one = HEAD + (b"X: " + b"x" * 8000 + b"\r\n") * 3 + b"\r\n"
    client.send_in_one_turn(*in_pieces(one * 10, 5000))
    assert statuses(client) == [200] * 10


def test_each_byte_of_the_headers_is_scanned_once(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    """Otherwise a client that sends single bytes could keep the event loop busy."""
    looked: list[int] = []
    bare = client.transport.protocol.parser

    class Spy:
        def feed_data(self, data: bytes) -> None:
            looked.append(len(data))
            bare.feed_data(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(bare, name)

    monkeypatch.setattr(client.transport.protocol, "parser", Spy())
    head = HEAD + b"X: " + b"x" * 5000 + b"\r\n\r\n"
    client.send_in_one_turn(*in_pieces(head, 1))
    assert statuses(client) == [200]
    assert sum(looked) == len(head)


ENDLESS_BODIES = {
    "an invalid size": b"zz\r\n",
    "a size that is too long": b"1" * 40,
    "a chunk's parameters": b"1;" + b"x" * 2 * MAX_TRAILERS,
    "a trailer": b"0\r\n" + b"x" * 2 * MAX_TRAILERS,
    "a trailer's value": b"0\r\nX: " + b"x" * 2 * MAX_TRAILERS,
    "trailers": b"0\r\n" + b"X: y\r\n" * MAX_TRAILERS,
    "trailers with a line break": b"0\r\n" + b"X: y\r\n" * MAX_TRAILERS + b"\r\n",
    "chunks of one byte": b"1\r\nx\r\n" * MAX_OVERHEAD,
    "chunks with parameters": (b"1;" + b"y" * 1000 + b"\r\nx\r\n") * 1000,
}


@pytest.mark.parametrize("body", ENDLESS_BODIES.values(), ids=ENDLESS_BODIES)
@pytest.mark.parametrize("size", [100, 4000])
def test_endless_chunks_are_not_waited_for(
    server: ScriptedServer, client: Client, application: Application, body: bytes, size: int
) -> None:
    client.send_in_one_turn(CHUNKED, *in_pieces(body, size))
    (request,) = application.requests
    state = request.scope["state"]
    assert state["is_incomplete"]
    assert statuses(client) == [200]  # the application reports the problem
    assert b"connection: close" in client.received
    assert client.is_closed()
    assert server.notes == []


def test_chunks_that_consist_mostly_of_sizes_are_too_long(
    client: Client, application: Application
) -> None:
    client.send_in_one_turn(CHUNKED, *in_pieces(b"1\r\nx\r\n" * MAX_OVERHEAD, 4000))
    assert application.requests[0].scope["state"]["is_too_long"]


def test_a_body_in_chunks_that_are_not_tiny_is_accepted(
    client: Client, application: Application
) -> None:
    chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    client.send_in_one_turn(CHUNKED, *in_pieces(chunk * 300 + b"0\r\n\r\n", 4000))
    assert application.bodies == [b"x" * 300_000]
    assert not application.requests[0].scope["state"].get("is_incomplete")


@pytest.mark.parametrize("stop", [True, False])
def test_bytes_after_a_malformed_chunk_are_discarded(
    client: Client, application: Application, stop: bool
) -> None:
    client.send_in_one_turn(CHUNKED + b"zz\r\n", GET, *([GET] if stop else []))
    assert len(application.requests) == 1
    assert statuses(client) == [200]


# -- data that is not HTTP


@pytest.mark.parametrize("size", [1, 1000])
def test_tls_on_a_plain_port_is_recorded_as_such(
    server: ScriptedServer, client: Client, size: int
) -> None:
    client.send_in_one_turn(*in_pieces(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", size))
    assert statuses(client) == [400]
    assert server.notes == [(CLIENT[0], TLS_WITHOUT_TLS_PORT, "", "")]


@pytest.mark.parametrize(
    "garbage",
    [b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET  / x\r\n\r\n", HEAD + b"X : y\r\n\r\n"],
)
def test_data_that_is_not_http_is_refused_and_recorded(
    server: ScriptedServer, client: Client, application: Application, garbage: bytes
) -> None:
    client.send(garbage)
    assert statuses(client) == [400]
    assert application.requests == []
    ((address, reason, _, path),) = server.notes
    assert address == CLIENT[0]
    assert reason.startswith(protocol.NOT_UNDERSTOOD)
    assert path in ("", "/", PATH)


def test_no_request_line_is_logged(
    client: Client, server: ScriptedServer, log_records: LogRecords
) -> None:
    client.send(HEAD + b"X : y\r\n\r\n")
    slow = server.connect()
    slow.send(HEAD)
    server.loop.pass_time(REQUEST_TIMEOUT + MOMENT)
    assert "callbacks" not in log_records.text


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("size", [7, 1000])
def test_a_malformed_request_is_refused_after_the_responses_to_earlier_ones(
    server: ScriptedServer, client: Client, application: Application, holds: bool, size: int
) -> None:
    application.holds = holds
    client.send_in_one_turn(*in_pieces(POST + POST + b"no HTTP at all\r\n\r\n" + POST, size))
    if holds:
        assert client.received == b""
        release(application, client)
        assert statuses(client) == [200]
        release(application, client)
    assert statuses(client) == [200, 200, 400]
    assert application.bodies == [b"12345"] * 2
    ((_, reason, *_),) = server.notes
    assert reason.startswith(protocol.NOT_UNDERSTOOD)


def test_a_refused_client_has_a_moment_to_read_the_response(
    server: ScriptedServer, client: Client
) -> None:
    """Closing the connection while the client sends could destroy the response on its way."""
    client.send(b"\x16\x03\x01")
    assert client.transport.has_ended
    assert not client.is_closed()
    client.send(b"more", b"and more")
    server.loop.pass_time(CLOSE_TIMEOUT + MOMENT)
    assert client.is_closed()
    assert len(server.notes) == 1


def test_a_half_closed_client_is_refused_after_the_previous_response_and_closed(
    client: Client, application: Application
) -> None:
    application.holds = True
    client.send(POST + b"no HTTP at all\r\n\r\n")
    client.half_close()
    release(application, client)
    assert statuses(client) == [200, 400]
    assert client.is_closed()


def test_a_refused_client_that_closes_its_side_is_closed(client: Client) -> None:
    client.send(b"\x16\x03\x01")
    client.half_close()
    assert client.is_closed()


@pytest.mark.parametrize("size", [1, 20, 1000])
@pytest.mark.parametrize("body", [b"Content-Length: 5\r\n\r\n12345", b"\r\n", CHUNK])
def test_an_upgrade_is_handled_like_any_other_request(
    server: ScriptedServer, client: Client, application: Application, size: int, body: bytes
) -> None:
    """A client may offer HTTP/2 with any request, as Java's client does."""
    upgrade = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
    client.send_in_one_turn(*in_pieces((upgrade + body) * 2 + POST, size))
    assert statuses(client) == [200] * 3
    sent = b"" if body == b"\r\n" else b"12345"
    assert application.bodies == [sent, sent, b"12345"]
    headers = [dict(request.scope["headers"]) for request in application.requests]
    assert not any(b"upgrade" in found for found in headers)
    assert all(found[b"host"] == b"receiver" for found in headers)
    assert not client.is_closed()
    assert server.notes == []


@pytest.mark.parametrize("size", [10, 1000])
def test_data_after_a_connect_is_not_handled(
    server: ScriptedServer, client: Client, application: Application, size: int
) -> None:
    connect = b"CONNECT /healthz HTTP/1.1\r\nHost: receiver\r\n\r\n"
    client.send_in_one_turn(*in_pieces(connect + GET + b"\x16\x03\x01", size))
    assert application.requests == []
    assert statuses(client) == [400]
    assert len(server.notes) == 1


def test_a_connect_to_another_host_is_refused(client: Client, application: Application) -> None:
    client.send(b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example\r\n\r\n")
    assert statuses(client) == [400]
    assert application.requests == []


# -- clients that expect 100 Continue before they send their body


def test_a_client_that_expects_continue_receives_it_once(client: Client) -> None:
    client.send(HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"12", b"345")
    assert statuses(client) == [100, 200]


def test_a_client_that_expects_continue_but_does_not_wait_receives_none(client: Client) -> None:
    client.send(HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n12345")
    assert statuses(client) == [200]


def test_a_client_that_expects_continue_receives_none_if_its_body_is_not_read(
    client: Client, application: Application
) -> None:
    application.reads = False
    client.send(HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert statuses(client) == [200]


def test_a_pipelined_request_receives_continue_after_the_previous_response(
    client: Client, application: Application
) -> None:
    application.holds = True
    client.send(POST + HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert client.received == b""
    release(application, client)
    assert statuses(client) == [200, 100]
    client.send(b"12345")
    release(application, client)
    assert statuses(client) == [200, 100, 200]


# -- clients that close their side of the connection, or have disconnected


def test_a_half_closed_client_receives_its_response(
    client: Client, application: Application
) -> None:
    application.holds = True
    client.send(POST)
    client.half_close()
    assert not client.is_closed()
    release(application, client)
    assert statuses(client) == [200]
    assert client.is_closed()


@pytest.mark.parametrize("holds", [True, False])
def test_all_pipelined_requests_are_handled_after_a_half_close(
    client: Client, application: Application, holds: bool
) -> None:
    application.holds = holds
    client.send_in_one_turn(POST * 3 + HEAD)
    client.half_close()
    while application.held:
        release(application, client)
    assert statuses(client) == [200] * 3
    assert client.is_closed()


@pytest.mark.parametrize(
    "start",
    [POST[:-2], CHUNKED, CHUNKED + b"5\r\n123", CHUNKED + b"3\r\n123\r\n"],
    ids=["with a length", "in chunks, nothing", "half a chunk", "no last chunk"],
)
def test_a_truncated_body_is_passed_to_the_application(
    server: ScriptedServer, client: Client, application: Application, start: bytes
) -> None:
    client.send(start)
    client.half_close()
    (request,) = application.requests
    assert request.scope["state"]["is_incomplete"]
    assert request.body == (b"" if start == CHUNKED else b"123")
    assert statuses(client) == [200]
    assert client.is_closed()
    assert server.notes == []


@pytest.mark.parametrize("start", [POST[:-2], CHUNKED + b"zz\r\n"])
def test_the_response_to_a_truncated_body_has_no_time_limit(
    server: ScriptedServer, client: Client, application: Application, start: bytes
) -> None:
    application.holds = True
    client.send(start)
    client.half_close()
    for _ in range(3):
        server.connect()
    assert server.slots.close_longest_waiting()
    server.loop.pass_time(2 * REQUEST_TIMEOUT)
    release(application, client)
    assert statuses(client) == [200]
    assert server.notes == []


@pytest.mark.parametrize("start", [b"", HEAD, GET])
def test_a_half_closed_client_that_expects_no_response_is_closed(
    server: ScriptedServer, client: Client, start: bytes
) -> None:
    client.send(start)
    client.half_close()
    assert client.is_closed()
    assert server.notes == []


def test_tls_has_no_half_closed_connections(
    server: ScriptedServer, application: Application
) -> None:
    application.holds = True
    client = server.connect(tls=True)
    client.send(POST)
    client.half_close()
    assert client.is_closed()


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
@pytest.mark.parametrize("start", [b"", HEAD, POST[:-1], POST, POST + HEAD, POST * 3])
def test_a_disconnected_client_uses_no_slot(
    server: ScriptedServer,
    client: Client,
    application: Application,
    start: bytes,
    error: Exception | None,
) -> None:
    application.holds = True
    client.send_in_one_turn(*([start] if start else []))
    client.leave(error)
    assert server.state.connections == set()
    assert (server.slots.waiting, server.slots.held) == ({}, {})
    for held in application.held:
        held.set()
    server.loop.settle()
    assert (server.slots.waiting, server.slots.held) == ({}, {})
    server.loop.pass_time(REQUEST_TIMEOUT + MOMENT)
    assert (server.slots.waiting, server.slots.held) == ({}, {})
    assert client.received == b""
    assert server.notes == []


# -- clients that do not read


@pytest.fixture
def stalled(client: Client) -> Client:
    client.transport.reads = False
    return client


def test_a_client_that_does_not_read_is_closed(
    server: ScriptedServer, stalled: Client, application: Application
) -> None:
    application.response = b"x" * 1_000_000
    stalled.send(GET)
    server.loop.pass_time(WRITE_TIMEOUT - MOMENT)
    assert not stalled.is_closed()
    limits = server.config.timeout_keep_alive + WRITE_TIMEOUT
    server.loop.pass_time(limits + 2 * MOMENT)
    assert stalled.is_closed()
    assert stalled.transport.was_aborted
    assert server.notes == []


def test_a_client_that_reads_none_of_many_responses_is_closed(
    server: ScriptedServer, stalled: Client, application: Application
) -> None:
    application.response = b"x" * 40_000
    stalled.send_in_one_turn(GET * 50)
    assert len(application.requests) < 5  # the other requests are not started
    server.loop.pass_time(WRITE_TIMEOUT + MOMENT)
    assert stalled.is_closed()
    assert len(application.requests) < 5
    assert server.notes == []


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_response_is_not_collected_for_a_client_that_does_not_read(
    server: ScriptedServer, stalled: Client, application: Application, size: int
) -> None:
    application.response, application.parts = b"x" * size, 1000
    stalled.send(GET)
    assert application.left > 1000 - 4 * MAX_BUFFERED / size - 3
    server.loop.pass_time(WRITE_TIMEOUT - MOMENT)
    stalled.read()
    assert len(stalled.received) > 1000 * size


def test_a_response_during_the_closing_of_the_connection_is_dropped(
    client: Client, application: Application
) -> None:
    application.holds = True
    client.send(POST)
    application.held[0].set()
    client.transport.protocol.abort()
    client.loop.settle()
    assert client.received == b""
    assert client.is_closed()


def test_further_requests_do_not_extend_the_time_of_a_client_that_does_not_read(
    server: ScriptedServer, stalled: Client, application: Application
) -> None:
    application.response = b"x" * 40_000
    stalled.send(GET * 3)
    server.loop.pass_time(WRITE_TIMEOUT - MOMENT)
    assert not stalled.transport.is_paused
    stalled.send(GET)
    server.loop.pass_time(2 * MOMENT)
    assert stalled.is_closed()


def test_the_time_of_a_request_begins_once_the_client_has_read_the_previous_response(
    server: ScriptedServer, stalled: Client, application: Application
) -> None:
    application.response = b"x" * 1_000_000
    stalled.send(GET + HEAD)
    server.loop.pass_time(WRITE_TIMEOUT - MOMENT)
    stalled.read()
    server.loop.pass_time(REQUEST_TIMEOUT - MOMENT)
    assert not stalled.is_closed()
    server.loop.pass_time(2 * MOMENT)
    assert stalled.is_closed()
    assert server.notes == [SLOW]


def test_a_client_that_reads_late_receives_all_responses(
    server: ScriptedServer, stalled: Client, application: Application
) -> None:
    application.response = b"x" * 40_000
    stalled.send_in_one_turn(GET * 50)
    server.loop.pass_time(WRITE_TIMEOUT - MOMENT)
    stalled.read()
    assert statuses(stalled) == [200] * 50
    server.loop.pass_time(server.config.timeout_keep_alive - MOMENT)
    assert not stalled.is_closed()


@pytest.mark.parametrize(
    "request_", [GET, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")]
)
def test_a_client_that_does_not_read_a_short_response_is_closed(
    server: ScriptedServer, stalled: Client, request_: bytes
) -> None:
    stalled.send(request_)
    assert not stalled.is_closed()
    server.loop.pass_time(server.config.timeout_keep_alive + WRITE_TIMEOUT + 2 * MOMENT)
    assert stalled.is_closed()
    assert server.notes == []


def test_the_last_response_may_be_read_late(server: ScriptedServer, stalled: Client) -> None:
    stalled.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    server.loop.pass_time(WRITE_TIMEOUT - MOMENT)
    stalled.read()
    assert statuses(stalled) == [200]
    assert stalled.is_closed()
    assert not stalled.transport.was_aborted


def test_a_client_that_does_not_read_can_be_closed_to_free_a_slot(
    server: ScriptedServer, stalled: Client, application: Application
) -> None:
    application.response = b"x" * 1_000_000
    stalled.send(GET)
    server.connect()
    assert server.slots.close_longest_waiting()
    assert stalled.is_closed()


def test_a_client_that_reads_nothing_is_closed_before_all_others(
    server: ScriptedServer, application: Application
) -> None:
    """Such a client is disconnected even before connections that have waited longer."""
    older = [server.connect() for _ in range(3)]
    older[0].send(HEAD)
    application.response = b"x" * 1_000_000
    stalled = [server.connect() for _ in range(3)]
    for client in stalled:
        client.transport.reads = False
        client.send(GET)
    server.loop.pass_time(STALL_TIMEOUT + MOMENT)
    newest = server.connect()
    for count in range(1, 4):
        assert server.slots.close_longest_waiting()
        server.loop.settle()
        assert [client.is_closed() for client in stalled] == [True] * count + [False] * (3 - count)
    assert not any(client.is_closed() for client in (*older, newest))
    assert server.slots.close_longest_waiting()  # now the longest-waiting one
    server.loop.settle()
    assert [client.is_closed() for client in (*older, newest)] == [False, True, False, False]


def test_a_client_that_has_not_stalled_yet_is_not_closed_before_others(
    server: ScriptedServer, application: Application
) -> None:
    older = [server.connect() for _ in range(2)]
    application.response = b"x" * 1_000_000
    reader = server.connect()
    reader.transport.reads = False
    reader.send(GET)
    assert server.slots.close_longest_waiting()
    server.loop.settle()
    assert [client.is_closed() for client in (*older, reader)] == [True, False, False]


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_an_unread_complete_response_has_the_same_time_limit_as_any_other(
    server: ScriptedServer, stalled: Client, application: Application, more: bytes
) -> None:
    """The timeout restarts neither at the end of the response nor when the connection closes."""
    application.response = b"x" * 1_000_000
    stalled.send(GET[:-2] + more + b"\r\n")
    server.loop.pass_time(WRITE_TIMEOUT - MOMENT)
    assert not stalled.is_closed()
    server.loop.pass_time(2 * MOMENT)
    assert stalled.is_closed()
    assert stalled.transport.was_aborted


@pytest.mark.parametrize(
    ("rate", "is_read"), [(2 * MIN_READ_RATE, True), (MIN_READ_RATE * 2 // 3, False)]
)
def test_a_client_that_reads_too_slowly_is_closed(
    server: ScriptedServer, stalled: Client, application: Application, rate: int, is_read: bool
) -> None:
    """The whole response may take WRITE_TIMEOUT plus the time that the minimum rate allows."""
    application.response, application.parts = b"x" * 10_000, 100
    stalled.send(GET)
    for _ in range(200):
        stalled.transport.read_some(rate)
        server.loop.pass_time(1)
    assert (len(stalled.received) > 1_000_000) is is_read
    assert stalled.is_closed()
    assert stalled.transport.was_aborted is not is_read


def test_a_fast_client_that_stops_reading_has_the_same_time_limit(
    server: ScriptedServer, stalled: Client, application: Application
) -> None:
    application.response, application.parts = b"x" * 100_000, 1000
    stalled.send(GET)
    for _ in range(50):
        stalled.transport.read_some(1_000_000)
        server.loop.settle()
    assert len(stalled.received) > 4_000_000
    server.loop.pass_time(WRITE_TIMEOUT + MOMENT)
    assert stalled.is_closed()


def test_the_next_response_has_its_own_time_limit(
    server: ScriptedServer, application: Application
) -> None:
    application.response = b"x" * 1_000_000
    server.config.timeout_keep_alive = 10 * int(WRITE_TIMEOUT)
    stalled = server.connect()
    for _ in range(3):
        stalled.transport.reads = False
        stalled.send(GET)
        server.loop.pass_time(WRITE_TIMEOUT - MOMENT)
        assert not stalled.is_closed()
        stalled.read()
    assert statuses(stalled) == [200] * 3


# -- when all slots are in use


def test_the_longest_waiting_connection_is_closed(server: ScriptedServer) -> None:
    first, second, third = (server.connect() for _ in range(3))
    first.send(GET)  # now it waits for its next request, for a shorter time than the others
    second.send(HEAD)
    assert server.slots.close_longest_waiting()
    server.loop.settle()
    assert [client.is_closed() for client in (first, second, third)] == [False, False, True]
    assert server.slots.close_longest_waiting()
    server.loop.settle()
    assert [client.is_closed() for client in (first, second)] == [True, False]
    assert not server.slots.close_longest_waiting()  # the last one may be new
    assert server.notes == []


def test_the_slot_of_a_closed_connection_is_free(server: ScriptedServer) -> None:
    """Otherwise one new client would close all others before the loop has closed the first."""
    for _ in range(5):
        server.connect()
    assert server.slots.close_longest_waiting()
    assert len(server.state.connections) == 4
    server.loop.settle()
    assert len(server.state.connections) == 4


def test_a_connection_with_a_running_request_is_not_closed(
    server: ScriptedServer, application: Application
) -> None:
    application.holds = True
    clients = [server.connect() for _ in range(4)]
    for client, start in zip(
        clients, [GET, POST, POST + HEAD, CHUNKED + b"0\r\n\r\n"], strict=True
    ):
        client.send(start)
    assert not server.slots.close_longest_waiting()
    server.connect()
    newest = server.connect()
    assert server.slots.close_longest_waiting()
    assert not server.slots.close_longest_waiting()
    for client in clients:
        release(application, client)
        assert statuses(client) == [200]
        assert not client.is_closed()
    assert not newest.is_closed()


def test_a_connection_with_a_long_body_is_not_closed(
    server: ScriptedServer, client: Client, application: Application
) -> None:
    application.is_long = True
    client.send(HEAD + b"Content-Length: 5000000\r\n\r\n12345")
    server.connect()
    assert not server.slots.close_longest_waiting()


# -- during shutdown


@pytest.mark.parametrize("start", [b"", GET, *HALF_REQUESTS.values()], ids=str)
def test_a_client_that_is_still_sending_has_two_seconds(
    server: ScriptedServer, client: Client, start: bytes
) -> None:
    client.send(start)
    server.stop()
    server.loop.pass_time(CLOSE_TIMEOUT - MOMENT)
    assert not client.is_closed()
    server.loop.pass_time(2 * MOMENT)
    assert client.is_closed()


def test_a_client_whose_handshake_ends_during_shutdown_has_two_seconds(
    server: ScriptedServer,
) -> None:
    server.stop()
    client = server.connect(tls=True)
    server.loop.pass_time(CLOSE_TIMEOUT + MOMENT)
    assert client.is_closed()


def test_a_client_that_sends_a_long_body_has_two_seconds(
    server: ScriptedServer, client: Client, application: Application
) -> None:
    application.is_long = True
    client.send(HEAD + b"Content-Length: 5000000\r\n\r\n12345")
    server.stop()
    server.loop.pass_time(CLOSE_TIMEOUT + MOMENT)
    assert client.is_closed()


def test_a_client_that_does_not_read_has_two_seconds(
    server: ScriptedServer, stalled: Client, application: Application
) -> None:
    application.response = b"x" * 1_000_000
    stalled.send(GET)
    server.stop()
    server.loop.pass_time(CLOSE_TIMEOUT + MOMENT)
    assert stalled.is_closed()


@pytest.mark.parametrize("start", [b"", GET, HEAD, POST[:-1]], ids=str)
def test_a_request_that_arrives_within_two_seconds_is_handled(
    server: ScriptedServer, client: Client, start: bytes
) -> None:
    client.send(start)
    before = len(statuses(client))
    server.stop()
    server.loop.pass_time(CLOSE_TIMEOUT - MOMENT)
    client.send(POST.removeprefix(start))
    assert statuses(client)[before:] == [200]
    assert b"\r\nconnection: close\r\n" in client.received
    assert client.is_closed()


@pytest.mark.parametrize("request_", [GET, POST])
def test_a_running_request_is_completed_and_is_the_last(
    server: ScriptedServer, client: Client, application: Application, request_: bytes
) -> None:
    application.holds = True
    client.send(request_)
    server.stop()
    server.loop.pass_time(10 * CLOSE_TIMEOUT)
    release(application, client)
    assert statuses(client) == [200]
    assert b"\r\nconnection: close\r\n" in client.received
    assert client.is_closed()


@pytest.mark.parametrize("count", [3, 200])
def test_pipelined_requests_are_all_handled_during_shutdown(
    server: ScriptedServer, client: Client, application: Application, count: int
) -> None:
    application.holds = True
    client.send(POST * count)
    server.stop()
    server.loop.pass_time(10 * CLOSE_TIMEOUT)
    while application.held:
        release(application, client)
    assert statuses(client) == [200] * count
    assert client.received.count(b"\r\nconnection: close\r\n") == 1
    assert client.is_closed()


def test_a_response_is_sent_although_the_client_closes_in_the_same_iteration(
    server: ScriptedServer,
) -> None:
    """The transport closes itself in this case, and does not know the collected response."""

    async def respond(_: Any, __: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})
        clients[0].transport.half_close()

    server.config.loaded_app = respond
    clients = [server.connect()]
    clients[0].send(GET)
    assert statuses(clients[0]) == [200]
    assert clients[0].received.endswith(b"ok")
    assert clients[0].is_closed()
