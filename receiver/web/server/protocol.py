"""uvicorn's HTTP protocol with limits, so that a slow client occupies a connection only briefly."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from contextvars import Context
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, TypeVar, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_TIMEOUT = 20.0  # seconds to receive a request; enough for 256 KB at 100 kbit/s
LONG_REQUEST_TIMEOUT = 120.0  # seconds to receive up to 30 MB, with a valid API token
WRITE_TIMEOUT = 10.0  # seconds that the client may take to read a short response
SLOWEST_READ = 12_500  # bytes per second, about, that the client of a long response has to read
READ_PER_RESUME = 64 * 1024  # bytes, at most, that the client has read when writing is resumed
STALLED_AFTER = 1.0  # seconds; a client that reads nothing for so long is closed before all others
CLOSE_TIMEOUT = 2.0  # seconds left to a client that still sends, after an error and at shutdown
SWEEP_INTERVAL = 0.5  # seconds between two checks for expired connections
LONGEST_HEAD = 32 * 1024  # bytes; real ones have 1 kB, or 8 kB with a proxy's cookies and tokens
LONGEST_TRAILERS = 8 * 1024  # bytes
MAX_OVERHEAD = 512 * 1024  # bytes received that are not the body: chunk sizes, trailers
MAX_BUFFERED = 64 * 1024  # bytes of a response that are collected before they are sent
PARSED_AT_ONCE = 4096  # bytes; at most 230 requests, which take 2 ms and 600 kB
PARSED_PER_TURN = 16 * 1024  # bytes of one connection; in chunks of one byte they take 2 ms
NOT_UNDERSTOOD = "The request is not HTTP, or its head is too long."
TLS_WITHOUT_TLS_PORT = "The request is not HTTP. Was TLS sent to a port without TLS?"
TOO_SLOW = f"The request was not complete within {REQUEST_TIMEOUT:g} s."

# Headers that may not be repeated, because servers disagree on which value applies.
UNIQUE_HEADERS = frozenset((b"host", b"content-type", b"transfer-encoding"))
# Headers that may not be trailers: a server that merges them could find another request.
FORBIDDEN_TRAILERS = UNIQUE_HEADERS - {b"content-type"} | {
    b"content-length",
    b"trailer",
    b"te",
    b"authorization",
}
CHECKED_HEADERS = UNIQUE_HEADERS | {b"expect"}  # headers that can make a request invalid
VERSIONS = ("1.0", "1.1")

Note = Callable[[str, str, str, str], None]  # address, reason, method, path
Method = TypeVar("Method", bound=Callable[..., Any])


class RequestLimits:
    """gunicorn's `limit_request_line`, `limit_request_fields` and `limit_request_field_size`.

    0 means that only the limit of the whole head applies, as it does in gunicorn.
    """

    def __init__(self, line: int = 4094, fields: int = 64, field_size: int = 8190) -> None:
        self.line, self.fields = line or LONGEST_HEAD, fields or LONGEST_HEAD
        self.field_size = field_size or LONGEST_HEAD


class ConnectionSlots:
    """The connections of one process that wait for their clients, longest wait first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: RequestLimits, note: Note) -> None:
        self.loop, self.limits, self.note = loop, limits, note
        self.waiting: dict[HttpConnection, float] = {}  # deadlines, on the loop's clock
        self.reading: dict[
            HttpConnection, float
        ] = {}  # of these, clients with unread data: since when
        self.held: dict[HttpConnection, float] = {}  # also deadlines; not closed for others
        self.is_stopping = False  # no deadline is later than CLOSE_TIMEOUT from now
        self._timer = loop.call_later(SWEEP_INTERVAL, self._sweep)

    def wait(self, connection: HttpConnection, seconds: float) -> None:
        """Close the connection after `seconds`, unless `wait` or `release` is called before."""
        self.release(connection)
        self.waiting[connection] = self._until(seconds)

    def wait_for_reader(self, connection: HttpConnection, seconds: float) -> None:
        """Like `wait`, for a client that has not read its response yet."""
        self.wait(connection, seconds)
        self.reading[connection] = self.loop.time()

    def hold(self, connection: HttpConnection, seconds: float) -> None:
        """Like `wait`, but the connection is never closed in favour of a new one."""
        self.release(connection)
        self.held[connection] = self._until(seconds)

    def shorten(self, connection: HttpConnection) -> None:
        """Limit the remaining time of a connection to CLOSE_TIMEOUT, for a shutdown."""
        for found in (self.waiting, self.held):
            if connection in found:
                found[connection] = min(found[connection], self._until(CLOSE_TIMEOUT))

    def release(self, connection: HttpConnection) -> None:
        """Stop waiting for the client of this connection."""
        self.waiting.pop(connection, None)
        self.reading.pop(connection, None)
        self.held.pop(connection, None)

    def close_longest_waiting(self) -> bool:
        """Close the connection whose client has not read for longest, or else has waited longest.

        Returns False if only one is waiting, because it may have just been accepted.
        """
        connection = next(iter(self.reading), None)
        if connection is None or self.loop.time() - self.reading[connection] < STALLED_AFTER:
            if len(self.waiting) < 2:
                return False
            connection = next(iter(self.waiting))
        self.release(connection)
        connection.abort()
        return True

    def close(self) -> None:
        self._timer.cancel()

    def _until(self, seconds: float) -> float:
        return self.loop.time() + (min(seconds, CLOSE_TIMEOUT) if self.is_stopping else seconds)

    def _sweep(self) -> None:
        # First, in case of an exception.
        self._timer = self.loop.call_later(SWEEP_INTERVAL, self._sweep)
        now = self.loop.time()
        for connection, until in [*self.waiting.items(), *self.held.items()]:
            if until <= now:
                self.release(connection)
                connection.expire()


class _BufferedTransport:
    """A transport that sends everything written in one loop iteration together.

    uvicorn writes the head and the body of a response separately, and uvloop sends each write on
    its own. That costs two packets, and two system calls on each side.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pieces: list[bytes] = []
        self._size = 0  # of `_pieces`, in bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self.flush, context=Context())
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_BUFFERED:  # so that the transport can apply backpressure
            self.flush()

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send what has been collected."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces and not self._transport.is_closing():  # a closed uvloop transport raises
            self._transport.write(b"".join(pieces))


class _PausableFlow(FlowControl):
    """uvicorn's flow control, which stops reading while received bytes are not parsed yet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.unparsed = b""  # received behind a request that waits for the previous response

    def resume_reading(self) -> None:
        if not self.unparsed:
            super().resume_reading()


class Stage(Enum):
    """The part of a request that the parser expects next."""

    START = auto()
    HEAD = auto()
    BODY = auto()


def _concerns_no_request(method: Method) -> Method:
    """Run the method in an empty context, so that its log lines never carry a request's ids.

    Event loops call a protocol in the context in which reading was last resumed, and a response
    ends in the context of its request.
    """

    @functools.wraps(method)
    def in_empty_context(*args: Any, **kwargs: Any) -> Any:
        return Context().run(method, *args, **kwargs)

    return cast("Method", in_empty_context)


class HttpConnection(HttpToolsProtocol):
    """One connection.

    In the `scope["state"]` of each request, `connection` is this object, `is_incomplete` is set if
    the body ended early, and `is_too_long` says whether it then exceeded a limit.
    """

    def __init__(self, *args: Any, slots: ConnectionSlots, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._slots, self._limits = slots, slots.limits
        self._stage = Stage.START
        self._first_byte = b""  # the first byte received in Stage.START
        self._requests_begun = 0  # in the piece that is being parsed
        self._has_progressed = False  # in that piece, the parser found a part of a body
        self._stalled_bytes = 0  # bytes received since then without progress
        self._head = self._head_in_pieces = self._fields = self._trailers = self._overhead = 0
        self._error_status: HTTPStatus | None = None
        self._refusal = b""  # the error response, sent after the responses to earlier requests
        self._ignores_input = False  # further data is discarded
        self._client_has_finished = False  # the client has closed its side
        self._read_deadline: float | None = None  # for the response that the client is reading
        self.was_aborted = False  # by us
        self.is_gone = False  # the connection is closed

    # -- called by the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow: _PausableFlow = _PausableFlow(transport)
        self._buffered_transport = _BufferedTransport(transport, self.loop)
        self.transport = self._buffered_transport  # type: ignore[assignment]
        self._slots.wait(self, REQUEST_TIMEOUT)

    @_concerns_no_request
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self._slots.release(self)
        super().connection_lost(exc)

    @_concerns_no_request
    def data_received(self, data: bytes) -> None:
        """Parse requests until one has to wait for the response to the one before it.

        The rest is parsed after that response: 64 kB can hold 3,600 requests, which would take
        40 ms and 8 MB. What need not wait is parsed in several turns of the event loop if it is
        long.
        """
        data, self.flow.unparsed = self.flow.unparsed + data, b""
        for start in range(0, len(data), PARSED_AT_ONCE):
            if self._ignores_input or self.transport.is_closing():
                return
            if self.pipeline or start >= PARSED_PER_TURN:
                self.flow.unparsed = data[start:]
                self.flow.pause_reading()
                if not self.pipeline:
                    self.loop.call_soon(self._continue)
                return
            self._receive(data[start : start + PARSED_AT_ONCE])
        if self._slots.is_stopping:
            self._close_after_response()

    def _continue(self) -> None:
        """Parse more, in another turn of the event loop."""
        if self.transport.is_closing():
            return
        self.data_received(b"")
        if self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()

    def _receive(self, data: bytes) -> None:
        before = self._stage
        if before is Stage.START and not self._first_byte:
            self._first_byte = data[:1]
            if not self._is_busy() and not self.flow.write_paused:
                self._slots.wait(self, REQUEST_TIMEOUT)
        self._requests_begun, self._has_progressed = 0, False
        self._overhead += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if not self._ignores_input and not self.transport.is_closing():
            self._check_progress(before, len(data))
            self._update_timeout()

    @_concerns_no_request
    def eof_received(self) -> bool | None:  # type: ignore[override]
        self._client_has_finished = True
        self._buffered_transport.flush()  # the transport closes if this returns None
        if self.scheme == "https":  # TLS has no half-closed connections
            return None
        if self._stage is Stage.BODY:
            self._end_body_early()
        elif self._ignores_input and self.cycle is not None:
            self.cycle.message_event.set()  # the application may be waiting for more body
        if not self._is_busy():
            return None
        if not self._refusal:  # a refusal is sent after the current response
            self.cycle.keep_alive = False
        return True

    @_concerns_no_request
    def pause_writing(self) -> None:
        super().pause_writing()
        if self._read_deadline is None:
            self._read_deadline = self.loop.time() + WRITE_TIMEOUT
        self._slots.wait_for_reader(self, self._read_deadline - self.loop.time())

    @_concerns_no_request
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._read_deadline is not None:
            more, latest = READ_PER_RESUME / SLOWEST_READ, self.loop.time() + WRITE_TIMEOUT
            self._read_deadline = min(self._read_deadline + more, latest)
        if not self._is_busy():
            self._read_deadline = None
        self._slots.release(self)
        self._update_timeout()

    # -- called by the parser

    def on_message_begin(self) -> None:
        self._stage = Stage.HEAD
        self._requests_begun += 1
        self._head = self._head_in_pieces = self._fields = self._trailers = self._overhead = 0
        self._stalled_bytes = 0
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head += len(url)
        if len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1") > self._limits.line:
            raise self._error(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value) + 4
        if self._stage is not Stage.HEAD:  # this is a trailer, which we ignore
            self._has_progressed = True
            self._trailers += size
            if self._trailers > LONGEST_TRAILERS or name.lower() in FORBIDDEN_TRAILERS:
                raise self._error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self._head += size
        self._fields += 1
        if (
            self._head > LONGEST_HEAD
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
        has_chunks = any(name == b"transfer-encoding" for name, _ in self.headers)
        if version not in VERSIONS or (has_chunks and version == "1.0"):
            raise self._error(HTTPStatus.BAD_REQUEST)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise self._error(HTTPStatus.BAD_REQUEST)
            return  # see `_decline_upgrade`
        super().on_headers_complete()
        self._stage = Stage.BODY
        if not self.timeout_keep_alive:  # the connection is closed: the response has to say so
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

    # -- called by uvicorn

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - our response has more detail
        """Reject invalid HTTP. If the body is malformed, the application sends the error."""
        if self._stage is Stage.BODY:
            self._end_body_early()
            return
        status = self._error_status or HTTPStatus.BAD_REQUEST
        self.logger.warning("Invalid HTTP request from %s: %s", self._address, status.phrase)
        is_http = self._first_byte.isalpha() or self._first_byte in (b"", b"\r", b"\n")
        self._record_rejection(
            f"{NOT_UNDERSTOOD} {status.phrase}" if is_http else TLS_WITHOUT_TLS_PORT
        )
        self._refusal, self._ignores_input = _error_response(status), True
        if not self._is_busy():
            self._send_refusal()

    @_concerns_no_request
    def on_response_complete(self) -> None:
        self._buffered_transport.flush()
        super().on_response_complete()
        if self not in self.connections:
            return  # the client has disconnected
        if not self.flow.write_paused:
            self._read_deadline = None
        if self.flow.unparsed:
            self.data_received(b"")
        if self.transport.is_closing():  # it closes after the client has read the response
            self._wait_for_reader()
        elif self._is_busy():
            pass  # the next request has been received
        elif self._refusal:
            self._send_refusal()
        else:
            if not self.flow.write_paused:  # or else the client still has its time to read
                self._slots.wait(self, REQUEST_TIMEOUT)
            if self._stage is not Stage.START:
                self._unset_keepalive_if_required()  # the next request has begun

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self.close()

    def shutdown(self) -> None:
        """Finish the current response. A client that is still sending has CLOSE_TIMEOUT left."""
        if not self.flow.unparsed:
            self._close_after_response()
        self._slots.shorten(self)

    # -- called by `Slots` and by the application

    def allow_long_body(self) -> None:
        """Extend the timeout for a body that the application reads while it arrives."""
        if not self.transport.is_closing():
            self._slots.hold(self, LONG_REQUEST_TIMEOUT)

    @_concerns_no_request
    def expire(self) -> None:
        """Abort the connection because its client took too long."""
        is_answered = self._stage is Stage.BODY and self.cycle.response_started
        is_received = is_answered or bool(self.flow.unparsed)
        if self._stage is not Stage.START and not self._ignores_input and not is_received:
            self._record_rejection(TOO_SLOW)
        self.abort()

    @_concerns_no_request
    def abort(self) -> None:
        """Close the connection immediately and discard unsent data."""
        self.was_aborted = self.is_gone = True
        self.connections.discard(self)  # frees the slot before the loop closes the socket
        self.transport.abort()

    def close(self) -> None:
        """Close the connection after the client has read the response, or after WRITE_TIMEOUT."""
        self._wait_for_reader()
        self.transport.close()

    @property
    def has_ended(self) -> bool:
        """Whether the client has finished sending."""
        return self._client_has_finished or self.transport.is_closing()

    # -- the rest

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parse the request again, without its Upgrade header.

        After an upgrade request, the parser skips the body and stops parsing.
        """
        line = b"%b %b HTTP/%b" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        headers = [b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join([line, *headers, b"", b""]) + rest)

    def _check_header(self, name: bytes, value: bytes) -> None:
        """Raise ValueError for an ambiguous header, or one that asks for an unsupported feature."""
        if name == b"expect":
            if value.lower() != b"100-continue":
                raise self._error(HTTPStatus.EXPECTATION_FAILED)
            self.expect_100_continue = self.parser.get_http_version() != "1.0"
        elif any(name == earlier for earlier, _ in self.headers):
            raise self._error(HTTPStatus.BAD_REQUEST)
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise self._error(HTTPStatus.NOT_IMPLEMENTED)

    def _check_progress(self, before: Stage, size: int) -> None:
        """After a piece of `size` bytes, reject a request whose head or body makes no progress."""
        if self._stage is Stage.HEAD:
            # A piece that contains the end of the previous request is not counted: it is unknown
            # how much of it belongs to this head.
            if self._requests_begun == (before is Stage.START):
                self._head_in_pieces += size
            if self._head_in_pieces > LONGEST_HEAD:
                self._error_status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self.send_400_response("")
        elif self._stage is Stage.BODY:
            self._stalled_bytes = 0 if self._has_progressed else self._stalled_bytes + size
            is_too_long = self._overhead > MAX_OVERHEAD
            if is_too_long or self._stalled_bytes > LONGEST_TRAILERS:
                self.scope["state"]["is_too_long"] = is_too_long
                self._end_body_early()

    def _close_after_response(self) -> None:
        """Close the connection after the response to the last request that was parsed."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _is_busy(self) -> bool:
        """Whether a request that was received completely is still being answered."""
        if self.pipeline:
            return True
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def _update_timeout(self) -> None:
        """Start or stop the timeout, depending on whether the server waits for the client."""
        if self._is_busy():
            if not self.flow.write_paused:
                self._slots.release(self)
        elif self not in self._slots.waiting and self not in self._slots.held:
            self._slots.wait(self, REQUEST_TIMEOUT)

    def _wait_for_reader(self) -> None:
        """Wait until the client has read everything, unless that has begun already."""
        if self not in self._slots.reading:
            self._slots.wait_for_reader(self, WRITE_TIMEOUT)

    def _end_body_early(self) -> None:
        """Notify the application that the rest of the body will not arrive."""
        self._ignores_input = True
        self.scope["state"]["is_incomplete"] = True
        self.cycle.keep_alive = self.cycle.more_body = False
        self.cycle.message_event.set()
        self._update_timeout()

    def _error(self, status: HTTPStatus) -> ValueError:
        self._error_status = status
        return ValueError(status.phrase)

    def _send_refusal(self) -> None:
        """Send the error response, and close the connection after a delay.

        Closing it immediately could destroy the response in transit if the client still sends.
        """
        self._unset_keepalive_if_required()
        self.transport.write(self._refusal)
        if self._client_has_finished:
            self.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._slots.wait(self, CLOSE_TIMEOUT)

    def _record_rejection(self, reason: str) -> None:
        """Record the rejection of a request that never reached the application."""
        url = self.url.decode("latin-1") if self._stage is not Stage.START else ""
        method = self.parser.get_method().decode("latin-1") if url else ""
        self._slots.note(self._address, reason, method, url)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else "a Unix socket"


def _error_response(status: HTTPStatus) -> bytes:
    document = json.dumps({"detail": NOT_UNDERSTOOD, "status": status, "title": status.phrase})
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(document)}\r\n\r\n"
    )
    return (head + document).encode()
