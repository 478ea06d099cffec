"""uvicorn's HTTP protocol with limits on heads and chunks, and without ambiguous requests."""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from receiver.text import limits
from receiver.web.server.connection_slots import RequestLimits

# Headers that may not be repeated, because servers disagree on which value applies.
UNIQUE_HEADERS = frozenset((b"host", b"content-type", b"transfer-encoding"))
# Headers that may not be trailers: a server that merges them could see another request.
FORBIDDEN_TRAILERS = UNIQUE_HEADERS - {b"content-type"} | {
    b"content-length",
    b"trailer",
    b"te",
    b"authorization",
}
CHECKED_HEADERS = UNIQUE_HEADERS | {b"expect"}  # headers that can make a request invalid
VERSIONS = ("1.0", "1.1")


class Stage(Enum):
    """The part of a request that the parser expects next."""

    START = auto()
    HEAD = auto()
    BODY = auto()


class StrictHttpProtocol(HttpToolsProtocol):
    """Parses the requests of one connection.

    In the `scope["state"]` of each request, `connection` is this object, and `is_too_long` says
    whether a body that ended early exceeded a limit.
    """

    def __init__(self, *args: Any, request_limits: RequestLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = request_limits
        self._stage = Stage.START
        self._first_byte = b""  # of the data received since then
        self._ignores_input = False  # further data is discarded
        self._error_status: HTTPStatus | None = None
        # Bytes of the current request.
        self._head = self._head_in_pieces = self._trailers = self._overhead = 0
        self._fields = 0
        self._unique_names: set[bytes] = set()  # the UNIQUE_HEADERS that the request contains
        self._requests_begun = 0  # in the piece that is being parsed
        self._has_progressed = False  # in that piece, the parser found a part of a body
        self._stalled_bytes = 0  # bytes received since then without progress

    def parse(self, data: bytes) -> None:
        """Parse a piece. If it is invalid or makes no progress, reject the request."""
        stage, size = self._stage, len(data)
        if stage is Stage.START and not self._first_byte:
            self._first_byte = data[:1]
        self._requests_begun, self._has_progressed = 0, False
        self._overhead += size
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                self.send_400_response("")
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
                continue
            break
        if not self._ignores_input and not self.transport.is_closing():
            self._check_progress(stage, size)

    def end_body_early(self) -> None:
        """Notify the application that the rest of the body will not arrive."""
        raise NotImplementedError

    # -- called by the parser

    def on_message_begin(self) -> None:
        self._stage = Stage.HEAD
        self._requests_begun += 1
        self._head = self._head_in_pieces = self._fields = self._trailers = self._overhead = 0
        self._stalled_bytes = 0
        self._unique_names.clear()
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head += len(url)
        if len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1") > self._limits.line:
            raise self._error(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value) + 4
        if self._stage is not Stage.HEAD:  # this is a trailer, which is ignored
            self._has_progressed = True
            self._trailers += size
            if self._trailers > limits.MAX_TRAILERS or name.lower() in FORBIDDEN_TRAILERS:
                raise self._error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self._head += size
        self._fields += 1
        if (
            self._head > limits.MAX_HEAD
            or self._fields > self._limits.fields
            or size > self._limits.field_size
        ):
            raise self._error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        name, value = name.lower(), value.rstrip(b" \t")
        if name in CHECKED_HEADERS:
            self._check_header(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        has_chunks = b"transfer-encoding" in self._unique_names
        if version not in VERSIONS or (has_chunks and version == "1.0"):
            raise self._error(HTTPStatus.BAD_REQUEST)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise self._error(HTTPStatus.BAD_REQUEST)
            return  # see `_without_upgrade`
        super().on_headers_complete()
        self._stage = Stage.BODY
        if (
            not self.timeout_keep_alive
        ):  # the response has to announce that the connection is closed
            self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        self._has_progressed = True

    def on_body(self, body: bytes) -> None:
        self._has_progressed = True
        self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self.cycle.waiting_for_100_continue = False  # the body has been received
        super().on_message_complete()
        self._stage, self._first_byte = Stage.START, b""

    # -- checks

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Return the request without its Upgrade header, for a new parser; `rest` follows the head.

        After an upgrade request, the parser skips the body and stops parsing.
        """
        line = b"%b %b HTTP/%b" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        headers = [b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join([line, *headers, b"", b""]) + rest

    def _check_header(self, name: bytes, value: bytes) -> None:
        """Raise ValueError for an ambiguous header, or one that requires an unsupported feature."""
        if name == b"expect":
            if value.lower() != b"100-continue":
                raise self._error(HTTPStatus.EXPECTATION_FAILED)
            self.expect_100_continue = self.parser.get_http_version() != "1.0"
        elif name in self._unique_names:
            raise self._error(HTTPStatus.BAD_REQUEST)
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise self._error(HTTPStatus.NOT_IMPLEMENTED)
        self._unique_names.add(name)

    def _check_progress(self, stage_before: Stage, size: int) -> None:
        """After a piece of `size` bytes, reject a request whose head or body makes no progress."""
        if self._stage is Stage.HEAD:
            # A piece that contains the end of the previous request is not counted: it is unknown
            # how much of it belongs to this head.
            if self._requests_begun == (stage_before is Stage.START):
                self._head_in_pieces += size
            if self._head_in_pieces > limits.MAX_HEAD:
                self._error_status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self.send_400_response("")
        elif self._stage is Stage.BODY:
            self._stalled_bytes = 0 if self._has_progressed else self._stalled_bytes + size
            is_too_long = self._overhead > limits.MAX_OVERHEAD
            if is_too_long or self._stalled_bytes > limits.MAX_TRAILERS:
                self.scope["state"]["is_too_long"] = is_too_long
                self.end_body_early()

    def _error(self, status: HTTPStatus) -> ValueError:
        self._error_status = status
        return ValueError(status.phrase)
