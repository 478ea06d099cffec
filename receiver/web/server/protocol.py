"""uvicorn's HTTP protocol with timeouts, so slow clients do not occupy connections for long."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from contextvars import Context
from http import HTTPStatus
from typing import Any, TypeVar, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from receiver.text import limits
from receiver.web.server.connection_slots import ConnectionSlots
from receiver.web.server.request_parser import Stage, StrictHttpProtocol

READ_PER_RESUME = 64 * 1024  # bytes, at most, that the client has read when writing is resumed
MAX_BUFFERED = 64 * 1024  # bytes of a response that are collected before they are sent
PARSED_AT_ONCE = 4096  # bytes; at most 230 requests, which take 2 ms and 600 kB
PARSED_PER_TURN = 16 * 1024  # bytes of one connection; in chunks of one byte they take 2 ms
NOT_UNDERSTOOD = "The request is not HTTP, or its head is too long."
TLS_WITHOUT_TLS_PORT = "The request is not HTTP. Was TLS sent to a port without TLS?"
TOO_SLOW = f"The request was not complete within {limits.REQUEST_TIMEOUT:g} s."

Method = TypeVar("Method", bound=Callable[..., Any])


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
        """Send the collected data."""
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


def _concerns_no_request(method: Method) -> Method:
    """Run the method in an empty context, so that its log lines never carry a request's ids.

    Event loops call a protocol in the context in which reading was last resumed, and a response
    ends in the context of its request.
    """

    @functools.wraps(method)
    def in_empty_context(*args: Any, **kwargs: Any) -> Any:
        return Context().run(method, *args, **kwargs)

    return cast("Method", in_empty_context)


class HttpConnection(StrictHttpProtocol):
    """One connection.

    In the `scope["state"]` of each request, `is_incomplete` is set if the body ended early.
    """

    def __init__(self, *args: Any, slots: ConnectionSlots, **kwargs: Any) -> None:
        super().__init__(*args, request_limits=slots.request_limits, **kwargs)
        self._slots = slots
        self._refusal = b""  # the error response, sent after the responses to earlier requests
        self._client_has_finished = False  # the client has closed its side
        self._read_deadline: float | None = None  # for the response that the client is reading
        self._end_stream: Callable[[], object] | None = None  # set while the response is a stream
        self.was_aborted = False  # by us
        self.is_gone = False  # the connection is closed

    # -- called by the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow: _PausableFlow = _PausableFlow(transport)
        self._buffered_transport = _BufferedTransport(transport, self.loop)
        self.transport = self._buffered_transport  # type: ignore[assignment]
        self._slots.wait(self, limits.REQUEST_TIMEOUT)

    @_concerns_no_request
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self._slots.release(self)
        if self._end_stream is not None:
            self._end_stream()
            self.finish_stream()
        super().connection_lost(exc)

    @_concerns_no_request
    def data_received(self, data: bytes) -> None:
        """Parse requests until one has to wait for the response to the one before it.

        The rest is parsed after that response: 64 kB can hold 3,600 requests, which would take 40
        ms and 8 MB. Long data that need not wait is parsed in several turns of the event loop.
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
        is_new = self._stage is Stage.START and not self._first_byte
        if is_new and not self._is_busy() and not self.flow.write_paused:
            self._slots.wait(self, limits.REQUEST_TIMEOUT)
        self._unset_keepalive_if_required()
        self.parse(data)
        if not self._ignores_input and not self.transport.is_closing():
            self._update_timeout()

    @_concerns_no_request
    def eof_received(self) -> bool | None:  # type: ignore[override]
        self._client_has_finished = True
        if self._end_stream is not None:  # or the stream of a client that left still counts
            self._end_stream()
        self._buffered_transport.flush()  # the transport closes if this returns None
        if self.scheme == "https":  # TLS has no half-closed connections
            return None
        if self._stage is Stage.BODY:
            self.end_body_early()
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
            self._read_deadline = self.loop.time() + limits.WRITE_TIMEOUT
        self._slots.wait_for_reader(self, self._read_deadline - self.loop.time())

    @_concerns_no_request
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._read_deadline is not None:
            extended = self._read_deadline + READ_PER_RESUME / limits.MIN_READ_RATE
            self._read_deadline = min(extended, self.loop.time() + limits.WRITE_TIMEOUT)
        if not self._is_busy():
            self._read_deadline = None
        self._slots.release(self)
        self._update_timeout()

    # -- called by the parser and by uvicorn

    def end_body_early(self) -> None:
        """Notify the application that the rest of the body will not arrive."""
        self._ignores_input = True
        self.scope["state"]["is_incomplete"] = True
        self.cycle.keep_alive = self.cycle.more_body = False
        self.cycle.message_event.set()
        self._update_timeout()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - our response has more detail
        """Reject invalid HTTP. If the body is malformed, the application sends the error."""
        if self._stage is Stage.BODY:
            self.end_body_early()
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
            if not self.flow.write_paused:  # otherwise, the client still has time to read
                self._slots.wait(self, limits.REQUEST_TIMEOUT)
            if self._stage is not Stage.START:
                self._unset_keepalive_if_required()  # the next request has begun

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self.close()

    def shutdown(self) -> None:
        """Finish the current response. A client that is still sending has CLOSE_TIMEOUT left."""
        if self._end_stream is not None:
            self._end_stream()
        if not self.flow.unparsed:
            self._close_after_response()
        self._slots.shorten(self)

    # -- called by ConnectionSlots and by the application

    def begin_stream(self, end: Callable[[], object]) -> None:
        """Begin a stream, which does not count towards the limit on connections.

        `end` is called when the client disconnects, or when the server stops.
        """
        self._end_stream = end
        self._slots.streams.add(self)
        if self._slots.is_stopping or self.has_ended:
            end()

    def finish_stream(self) -> None:
        """Count the connection towards the limit on connections again."""
        self._end_stream = None
        self._slots.streams.discard(self)

    async def wait_until_read(self) -> None:
        """Wait until the client has read almost everything that was sent.

        It then has WRITE_TIMEOUT to read what is sent next, however long the stream has lasted.
        """
        self._buffered_transport.flush()
        while self.flow.write_paused and not self.is_gone:
            await self.flow.drain()
        if not self.is_gone:
            self._read_deadline = None

    def allow_long_body(self) -> None:
        """Extend the timeout for a body that the application reads while it arrives."""
        if not self.transport.is_closing():
            self._slots.hold(self, limits.LONG_REQUEST_TIMEOUT)

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
        self._slots.streams.discard(self)
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

    # -- details

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
            self._slots.wait(self, limits.REQUEST_TIMEOUT)

    def _wait_for_reader(self) -> None:
        """Wait until the client has read everything, unless that has begun already."""
        if self not in self._slots.reading:
            self._slots.wait_for_reader(self, limits.WRITE_TIMEOUT)

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
        self._slots.wait(self, limits.CLOSE_TIMEOUT)

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
