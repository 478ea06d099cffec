"""Closes the connection after a response to a request whose body was not read.

The end of such a body is unknown, so the server could interpret a part of it as the next request,
or respond to the same request again. The default worker closes the connection itself
(server/flask_bridge.py). This WSGI middleware does it for gunicorn's own workers, and also limits
the time for writing a response.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gunicorn.http.errors import ParseException
from werkzeug.exceptions import BadRequest
from werkzeug.wsgi import ClosingIterator, get_content_length

from receiver.text import limits
from receiver.web.admission import INCOMPLETE_BODY

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PIECE = 16 * 1024  # bytes


class UnreadBodies:
    """WSGI middleware; it has to be the outermost one."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        connection = environ.get("gunicorn.socket")
        close: Callable[[], None] | None
        close = getattr(getattr(start_response, "__self__", None), "force_close", None)
        if connection is None or close is None:  # another server
            return self._app(environ, start_response)
        body = environ["wsgi.input"] = _Body(environ)

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            if not body.is_complete and not _drain(body, connection):
                close()
            connection.settimeout(limits.WRITE_TIMEOUT)
            return start_response(status, headers, exc_info)

        def end() -> None:
            if not body.is_complete:
                _linger(connection)

        response = self._app(environ, start)
        return response if body.is_complete else ClosingIterator(response, [end])


class _Body:
    """The body of a request, with the information whether it was read to its end."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._stream = environ["wsgi.input"]
        self.is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        self._left = get_content_length(environ) or 0  # bytes, of a body with a length
        self.is_complete = not self.is_chunked and self._left == 0
        self.has_failed = False

    @property
    def is_long(self) -> bool:
        """Whether the rest is longer than any callback."""
        return self._left > limits.MAX_BODY

    def read(self, size: int = -1) -> bytes:
        return self._read(self._stream.read, size, size)

    def readline(self, size: int = -1) -> bytes:
        return self._read(self._stream.readline, size, 1)

    def readlines(self, _: int = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _read(self, read: Callable[[int], bytes], size: int, expected: int) -> bytes:
        """Return `read(size)`, and update what is known about the rest of the body.

        Fewer bytes than `expected` mean that the body has ended; -1 stands for all of it.
        """
        try:
            piece = read(size)
        except ParseException as error:
            self.has_failed = True
            raise BadRequest(INCOMPLETE_BODY) from error
        except Exception:
            self.has_failed = True
            raise
        self._left -= len(piece)
        has_ended = expected != 0 and (expected < 0 or len(piece) < expected)
        self.is_complete = has_ended if self.is_chunked else self._left <= 0
        self.has_failed = has_ended and not self.is_complete  # the client stopped sending
        return piece


def _linger(connection: Any) -> None:
    """After the response, discard what the client still sends.

    Closing the connection immediately could destroy the response in transit.
    """
    until = time.monotonic() + limits.CLOSE_TIMEOUT
    with suppress(OSError):  # the client has closed the connection, or the time is over
        connection.shutdown(socket.SHUT_WR)
        while (remaining := until - time.monotonic()) > 0:
            connection.settimeout(remaining)
            if not connection.recv(PIECE):
                return


def _drain(body: _Body, connection: Any) -> bool:
    """Read the rest of a short body, so that the connection can be used for the next request.

    Returns False for a body that is long, malformed, or does not arrive soon.
    """
    until, left = time.monotonic() + limits.CLOSE_TIMEOUT, limits.MAX_BODY
    while not (body.is_complete or body.has_failed or body.is_long) and left > 0:
        remaining = until - time.monotonic()
        if remaining <= 0:
            break
        connection.settimeout(remaining)
        try:
            left -= len(body.read(PIECE))
        except (BadRequest, OSError, ValueError):
            break
    return body.is_complete
