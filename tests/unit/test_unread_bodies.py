"""gunicorn's own workers close a connection if the request body was not read completely."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import pytest
from gunicorn.http.errors import InvalidChunkSize
from werkzeug.exceptions import BadRequest

from receiver.text.limits import CLOSE_TIMEOUT, MAX_BODY, WRITE_TIMEOUT
from receiver.web.middleware import UnreadBodies

Environ = dict[str, Any]


class Gunicorn:
    """Calls the application as gunicorn does, with a body that may end or fail early."""

    def __init__(self, body: bytes = b"", fails: Exception | None = None, **environ: Any) -> None:
        self.sent, self.fails = BytesIO(body), fails
        self.environ: Environ = {"wsgi.input": self, "gunicorn.socket": self, **environ}
        self.is_closing = self.is_shut = False
        self.timeouts: list[float] = []
        self.statuses: list[str] = []
        self.rest = [b"more", b"and more"]  # sent by the client after the response

    def serve(self, work: Callable[[Environ], Iterable[bytes]]) -> bytes:
        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            found = work(environ)
            start_response("404 NOT FOUND", [])
            return found

        found = UnreadBodies(app)(self.environ, self.start_response)
        body = b"".join(found)
        assert not self.is_shut
        if hasattr(found, "close"):  # like a server
            found.close()
        return body

    def start_response(self, status: str, _: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        assert exc_info is None
        self.statuses.append(status)
        return lambda _: None

    def force_close(self) -> None:
        assert self.statuses == []
        self.is_closing = True

    def read(self, size: int = -1) -> bytes:
        found = self.sent.read(size)
        if self.fails and (size < 0 or len(found) < size):
            raise self.fails
        return found

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def shutdown(self, _: int) -> None:
        self.is_shut = True

    def recv(self, _: int) -> bytes:
        return self.rest.pop(0) if self.rest else b""


def refuse(_: Environ) -> list[bytes]:
    return [b"no"]


CHUNKED: Any = {"HTTP_TRANSFER_ENCODING": "chunked"}
UNREADABLE = {
    "malformed chunks": Gunicorn(b"abc", InvalidChunkSize(b"zz"), **CHUNKED),
    "a client that stops sending": Gunicorn(b"abc", TimeoutError(), CONTENT_LENGTH="5"),
    "a client that disconnected": Gunicorn(b"abc", ConnectionResetError(), CONTENT_LENGTH="5"),
    "an end that comes too early": Gunicorn(b"abc", CONTENT_LENGTH="5"),
    "a long body": Gunicorn(b"abc", AssertionError(), CONTENT_LENGTH=str(MAX_BODY + 1)),
    "endless chunks": Gunicorn(b"x" * (MAX_BODY + 20_000), AssertionError(), **CHUNKED),
}


@pytest.mark.parametrize("server", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_body_closes_the_connection_after_the_response(server: Gunicorn) -> None:
    assert server.serve(refuse) == b"no"
    assert server.is_closing
    assert server.is_shut
    assert server.rest == []  # discarded, so that the client can read the response
    assert server.timeouts[-1] <= CLOSE_TIMEOUT


COMPLETE: dict[str, tuple[bytes, dict[str, str]]] = {
    "none": (b"", {}),
    "no length": (b"", {"CONTENT_LENGTH": "0"}),
    "a length": (b"abc", {"CONTENT_LENGTH": "3"}),
    "several pieces": (b"x" * 100_000, {"CONTENT_LENGTH": "100000"}),
    "chunks": (b"abc", CHUNKED),
    "no chunk": (b"", CHUNKED),
}


@pytest.mark.parametrize(("body", "environ"), COMPLETE.values(), ids=COMPLETE)
@pytest.mark.parametrize("is_read", [True, False])
def test_after_a_complete_body_the_connection_stays_open(
    body: bytes, environ: Any, is_read: bool
) -> None:
    server = Gunicorn(body, **environ)

    def work(environ: Environ) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or -1)
        return [environ["wsgi.input"].read(length) if is_read else b""]

    assert server.serve(work) == (body if is_read else b"")
    assert not server.is_closing
    assert not server.is_shut
    assert server.timeouts[-1] == WRITE_TIMEOUT


@pytest.mark.parametrize("read", ["read", "readline", "readlines"])
def test_malformed_chunks_are_a_bad_request_wherever_they_are_read(read: str) -> None:
    server = Gunicorn(b"abc", InvalidChunkSize(b"zz"), **CHUNKED)

    def work(environ: Environ) -> Iterable[bytes]:
        with pytest.raises(BadRequest):
            getattr(environ["wsgi.input"], read)()
        return []

    server.serve(work)
    assert server.is_closing


@pytest.mark.parametrize("environ", [CHUNKED, {"CONTENT_LENGTH": "7"}], ids=["chunks", "a length"])
def test_lines_of_the_body_can_be_read(environ: Any) -> None:
    server = Gunicorn(b"abc\ndef", **environ)
    assert server.serve(lambda environ: list(environ["wsgi.input"])) == b"abc\ndef"
    assert not server.is_closing


def test_another_server_gets_the_application_unchanged() -> None:
    server = Gunicorn(b"abc", CONTENT_LENGTH="5")
    del server.environ["gunicorn.socket"]
    app = UnreadBodies(lambda environ, _: [environ["wsgi.input"].read()])
    assert app(server.environ, server.start_response) == [b"abc"]
    assert server.timeouts == []
