"""The WSGI middleware: normalizes callback paths, and handles unread request bodies."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gunicorn.http.errors import ParseException
from werkzeug.exceptions import BadRequest
from werkzeug.wsgi import ClosingIterator, get_content_length

from receiver.text import limits
from receiver.web.callbacks import INCOMPLETE_BODY

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PIECE = 16 * 1024  # bytes
PART_COUNTS = (2, 4)  # of a callback path: with the provider, or the provider, task and token
# A query or fragment whose first character was percent-encoded or is missing.
_APPENDED = re.compile(r"[?&#;]")
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_-]+)+")  # nothing to normalize
_INVISIBLE = "\u200b\u2060\ufeff"  # not spaces according to Unicode


class CallbackPaths:
    """Normalizes callback paths that a sender or a proxy has altered."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if not _PLAIN_PATH.fullmatch(path):
            decoded = path.encode("latin-1").decode("utf-8", "replace")
            normalized_path = normalized(decoded)
            if normalized_path != decoded:
                environ["PATH_INFO"] = normalized_path
        return self._app(environ, start_response)


def normalized(path: str) -> str:
    """Return the path of a callback without additions; return any other path unchanged.

    Removes repeated and trailing slashes, spaces around each part, and a query after the token.
    Decodes remaining percent-encodings. The provider, the task and the token do not change, because
    they never contain such characters.
    """
    if "callbacks" not in path:
        return path
    plain = _APPENDED.split(unquote(path), maxsplit=1)[0]
    parts = [part.strip().strip(_INVISIBLE).strip() for part in plain.split("/")]
    parts = [part for part in parts if part]
    rejoined = "/" + "/".join(parts)
    is_callback = len(parts) in PART_COUNTS and parts[0] == "callbacks" and rejoined.isascii()
    return rejoined if is_callback else path


class UnreadBodies:
    """Closes the connection after a response to a request whose body was not read.

    The end of such a body is unknown, so the server could interpret a part of it as the next
    request, or respond to the same request again. The default worker closes the connection itself
    (server/flask_bridge.py). This middleware does it for gunicorn's own workers, and also limits
    the time for writing a response. It has to be the outermost one.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        connection = environ.get("gunicorn.socket")
        close: Any = getattr(getattr(start_response, "__self__", None), "force_close", None)
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
        self.left = get_content_length(environ) or 0  # bytes, of a body with a length
        self.is_complete = not self.is_chunked and self.left == 0
        self.has_failed = False

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, or all."""
        try:
            piece: bytes = self._stream.read(size)
        except ParseException as error:
            self.has_failed = True
            raise BadRequest(INCOMPLETE_BODY) from error
        except Exception:
            self.has_failed = True
            raise
        self.left -= len(piece)
        has_ended = size < 0 or len(piece) < size
        self.is_complete = has_ended if self.is_chunked else self.left <= 0
        self.has_failed = has_ended and not self.is_complete  # the client stopped sending
        return piece

    def readline(self, size: int = -1) -> bytes:
        """Read a line, byte by byte. WSGI requires this method, but no route reads lines."""
        line = bytearray()
        while len(line) != size and not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)

    def readlines(self, _: int = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")


def _linger(connection: Any) -> None:
    """After the response, discard the data that the client still sends.

    Closing the connection immediately could destroy the response in transit.
    """
    until = time.monotonic() + limits.CLOSE_TIMEOUT
    with suppress(OSError):  # the client has closed the connection, or the time is up
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
    is_long = body.left > limits.MAX_BODY
    while not (body.is_complete or body.has_failed or is_long) and left > 0:
        remaining = until - time.monotonic()
        if remaining <= 0:
            break
        connection.settimeout(remaining)
        try:
            left -= len(body.read(PIECE))
        except (BadRequest, OSError, ValueError):
            break
    return body.is_complete
