"""uvicorn's HTTP protocol, with limits: a slow client costs a connection, and that not for long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ARRIVES_WITHIN = 20.0  # seconds; 256 KB at 100 kbit/s
LONG_ARRIVES_WITHIN = 120.0  # seconds; 30 MB, with the API's token
ANSWER_IS_TAKEN_WITHIN = 10.0  # seconds that a response waits for who does not read it
LEAVES_WITHIN = 2.0  # seconds; for a client that still sends to read its answer, and at SIGTERM
SWEEP_EVERY = 0.5  # seconds
LONGEST_HEAD = 32 * 1024  # bytes; real ones have 1 kB, a proxy's cookies and tokens make it 8
LONGEST_TRAILERS = 8 * 1024  # bytes
MOST_OVERHEAD = 512 * 1024  # bytes on the wire that are not the body: sizes of chunks, trailers
MOST_GATHERED = 64 * 1024  # bytes of a response that are sent together
PARSED_AT_ONCE = 1024  # bytes; they hold 60 requests at most, which take 0.5 ms and 150 kB
NOT_UNDERSTOOD = "The request is not HTTP, or its head is too long."
WAS_IT_TLS = "no HTTP came; was TLS sent to a port that speaks none?"
TOO_SLOW = f"it did not arrive whole within {ARRIVES_WITHIN:g} s"

ONCE = frozenset((b"host", b"content-type", b"transfer-encoding"))  # two could be read either way
# What no trailer may be: who reads it might find another request.
NO_TRAILERS = ONCE - {b"content-type"} | {b"content-length", b"trailer", b"te", b"authorization"}
LOOKED_AT = ONCE | {b"expect"}  # headers that may end a request
VERSIONS = ("1.0", "1.1")

Note = Callable[[str, str, str, str], None]  # address, reason, method, path


class Limits:
    """How long a request line and its headers may be; gunicorn's settings of these names.

    0: as long as a head may be.
    """

    def __init__(self, line: int = 4094, fields: int = 64, field_size: int = 8190) -> None:
        self.line, self.fields = line or LONGEST_HEAD, fields or LONGEST_HEAD
        self.field_size = field_size or LONGEST_HEAD


class Slots:
    """The connections of one process that wait for their clients, the longest wait first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, note: Note) -> None:
        self.loop, self.limits, self.note = loop, limits, note
        self.waiting: dict[Protocol, float] = {}  # until when, by the loop's clock
        self.held: dict[Protocol, float] = {}  # the same, for those that make no room for others
        self.is_stopping = False  # nobody has more than a moment
        self._timer = loop.call_later(SWEEP_EVERY, self._sweep)

    def wait(self, connection: Protocol, seconds: float) -> None:
        """Close it unless `release` is called in time, or `wait` again."""
        self.release(connection)
        self.waiting[connection] = self._until(seconds)

    def hold(self, connection: Protocol, seconds: float) -> None:
        """As `wait`, but it is not closed to make room."""
        self.release(connection)
        self.held[connection] = self._until(seconds)

    def hurry(self, connection: Protocol) -> None:
        """The process is about to end."""
        for found in (self.waiting, self.held):
            if connection in found:
                found[connection] = min(found[connection], self._until(LEAVES_WITHIN))

    def release(self, connection: Protocol) -> None:
        """Its client is not waited for."""
        self.waiting.pop(connection, None)
        self.held.pop(connection, None)

    def make_room(self) -> bool:
        """Close the connection that waits longest; False if only one waits, which may be new."""
        if len(self.waiting) < 2:
            return False
        connection = next(iter(self.waiting))
        self.release(connection)
        connection.abort()
        return True

    def close(self) -> None:
        self._timer.cancel()

    def _until(self, seconds: float) -> float:
        return self.loop.time() + (min(seconds, LEAVES_WITHIN) if self.is_stopping else seconds)

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(SWEEP_EVERY, self._sweep)  # whatever happens below
        now = self.loop.time()
        for connection, until in [*self.waiting.items(), *self.held.items()]:
            if until <= now:
                self.release(connection)
                connection.expire()


class _Gathering:
    """A transport that sends what is written in one turn of the loop at once.

    uvicorn writes the head of a response and its body one after the other, and uvloop sends each
    by itself: two packets, two calls of the kernel on either side.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pieces: list[bytes] = []
        self._size = 0  # bytes in them

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MOST_GATHERED:  # the client may not read it
            self.flush()

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send it now."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces and not self._transport.is_closing():  # uvloop's raises once it is closed
            self._transport.write(b"".join(pieces))


class _Flow(FlowControl):
    """uvicorn's, which reads nothing while it holds bytes that are not parsed yet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.unparsed = b""  # what came behind a request that waits for the one before it

    def resume_reading(self) -> None:
        if not self.unparsed:
            super().resume_reading()


class Stage(Enum):
    """What of a request comes next."""

    START = auto()
    HEAD = auto()
    BODY = auto()


class Protocol(HttpToolsProtocol):
    """One connection.

    `scope["state"]` of each request holds `connection`, this; `broke_off`, whether the body ended
    before its end; and `is_too_long`, whether it was cut off.
    """

    def __init__(self, *args: Any, slots: Slots, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._slots, self._limits = slots, slots.limits
        self._stage = Stage.START
        self._started = b""  # the first byte of what came at Stage.START
        self._began = 0  # how many requests began in the piece that is read now
        self._has_progressed = False  # in that piece the parser got on with a body
        self._quiet = 0  # bytes of a body since it did
        self._head = self._head_in_pieces = self._fields = self._trailers = self._overhead = 0
        self._fault: HTTPStatus | None = None
        self._refusal = b""  # the answer to what is not HTTP, after those to the requests before it
        self._is_deaf = False  # what still comes is thrown away
        self._has_ended = False  # the client sends no more

    # -- called by the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport)
        self._gathering = _Gathering(transport, self.loop)
        self.transport = self._gathering  # type: ignore[assignment]
        self._slots.wait(self, ARRIVES_WITHIN)

    def connection_lost(self, exc: Exception | None) -> None:
        self._slots.release(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse it until a request has to wait for the one before it.

        The rest is parsed when that one is answered: 64 kB can hold 3,600 requests, which would
        take 40 ms and 8 MB.
        """
        data, self.flow.unparsed = self.flow.unparsed + data, b""
        for at in range(0, len(data), PARSED_AT_ONCE):
            if self._is_deaf or self.transport.is_closing():
                return
            if self.pipeline:
                self.flow.unparsed = data[at:]
                self.flow.pause_reading()
                return
            self._receive(data[at : at + PARSED_AT_ONCE])
        if self._slots.is_stopping:
            self._let_be_last()

    def _receive(self, data: bytes) -> None:
        before = self._stage
        if before is Stage.START and not self._started:
            self._started = data[:1]
            if not self._is_busy():
                self._slots.wait(self, ARRIVES_WITHIN)
        self._began, self._has_progressed = 0, False
        self._overhead += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if not self._is_deaf and not self.transport.is_closing():
            self._check_progress(before, len(data))
            self._follow()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        self._has_ended = True
        self._gathering.flush()  # the transport closes itself where this returns None
        if self.scheme == "https":  # TLS has no half-closed connections
            return None
        if self._stage is Stage.BODY:
            self._break_off()
        elif self._is_deaf and self.cycle is not None:
            self.cycle.message_event.set()  # the application need not wait for the rest any more
        if not self._is_busy():
            return None
        if not self._refusal:  # which has to be sent yet
            self.cycle.keep_alive = False
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._slots.wait(self, ANSWER_IS_TAKEN_WITHIN)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._slots.release(self)
        self._follow()

    # -- called by the parser

    def on_message_begin(self) -> None:
        self._stage = Stage.HEAD
        self._began += 1
        self._head = self._head_in_pieces = self._fields = self._trailers = self._overhead = 0
        self._quiet = 0
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head += len(url)
        if len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1") > self._limits.line:
            raise self._wrong(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value) + 4
        if self._stage is not Stage.HEAD:  # of a trailer nobody here knows what to think
            self._has_progressed = True
            self._trailers += size
            if self._trailers > LONGEST_TRAILERS or name.lower() in NO_TRAILERS:
                raise self._wrong(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self._head += size
        self._fields += 1
        if (
            self._head > LONGEST_HEAD
            or self._fields > self._limits.fields
            or size > self._limits.field_size
        ):
            raise self._wrong(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        name, value = name.lower(), value.rstrip(b" \t")
        if name in LOOKED_AT:
            self._look_at(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        has_chunks = any(name == b"transfer-encoding" for name, _ in self.headers)
        if version not in VERSIONS or (has_chunks and version == "1.0"):
            raise self._wrong(HTTPStatus.BAD_REQUEST)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise self._wrong(HTTPStatus.BAD_REQUEST)
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
        self.cycle.waiting_for_100_continue = False  # the body is here
        super().on_message_complete()
        self._stage, self._started = Stage.START, b""

    # -- called by uvicorn

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says more
        """Refuse what is not HTTP; a body that is malformed is refused by the application."""
        if self._stage is Stage.BODY:
            self._break_off()
            return
        status = self._fault or HTTPStatus.BAD_REQUEST
        self.logger.warning("Not HTTP, from %s: %s", self._address, status.phrase)
        is_http = self._started.isalpha() or self._started in (b"", b"\r", b"\n")
        self._tell(f"{NOT_UNDERSTOOD} {status.phrase}" if is_http else WAS_IT_TLS)
        self._refusal, self._is_deaf = _answer(status), True
        if not self._is_busy():
            self._refuse()

    def on_response_complete(self) -> None:
        self._gathering.flush()
        super().on_response_complete()
        if self not in self.connections:
            return  # the client has left
        if self.flow.unparsed:
            self.data_received(b"")
        if self.transport.is_closing():  # once who reads has taken the answer
            self._slots.wait(self, ANSWER_IS_TAKEN_WITHIN)
        elif self._is_busy():
            pass  # the next request is there
        elif self._refusal:
            self._refuse()
        else:
            self._slots.wait(self, ARRIVES_WITHIN)
            if self._stage is not Stage.START:
                self._unset_keepalive_if_required()  # the next request has begun

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self.close()

    def shutdown(self) -> None:
        """Answer what is under way; who still sends, or is about to, has a moment."""
        if not self.flow.unparsed:
            self._let_be_last()
        self._slots.hurry(self)

    # -- called by `Slots` and by the application

    def allow_long_body(self) -> None:
        """More time for a body that is being read as it comes."""
        if not self.transport.is_closing():
            self._slots.hold(self, LONG_ARRIVES_WITHIN)

    def expire(self) -> None:
        """The client took too long."""
        is_answered = self._stage is Stage.BODY and self.cycle.response_started
        is_here = is_answered or bool(self.flow.unparsed)
        if self._stage is not Stage.START and not self._is_deaf and not is_here:
            self._tell(TOO_SLOW)
        self.abort()

    def abort(self) -> None:
        """Close it, whatever the client was sent and has not read."""
        self.connections.discard(self)  # its place is free, although the loop has yet to close it
        self.transport.abort()

    def close(self) -> None:
        """Close it once the client has taken what it was sent, or did not in time."""
        self._slots.wait(self, ANSWER_IS_TAKEN_WITHIN)
        self.transport.close()

    @property
    def has_ended(self) -> bool:
        """Does the client send no more?"""
        return self._has_ended or self.transport.is_closing()

    # -- the rest

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read the request again, without the header that asks for another protocol.

        The parser has thrown away its body, and reads nothing more.
        """
        line = b"%b %b HTTP/%b" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        headers = [b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join([line, *headers, b"", b""]) + rest)

    def _look_at(self, name: bytes, value: bytes) -> None:
        """Refuse what could be read in two ways, and what nobody here can do."""
        if name == b"expect":
            if value.lower() != b"100-continue":
                raise self._wrong(HTTPStatus.EXPECTATION_FAILED)
            self.expect_100_continue = self.parser.get_http_version() != "1.0"
        elif any(name == before for before, _ in self.headers):
            raise self._wrong(HTTPStatus.BAD_REQUEST)
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise self._wrong(HTTPStatus.NOT_IMPLEMENTED)

    def _check_progress(self, before: Stage, size: int) -> None:
        """Refuse what never becomes a request, after a piece of this size."""
        if self._stage is Stage.HEAD:
            # Of a piece that holds the end of another request, nobody knows how much is this head.
            if self._began == (before is Stage.START):
                self._head_in_pieces += size
            if self._head_in_pieces > LONGEST_HEAD:
                self._fault = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self.send_400_response("")
        elif self._stage is Stage.BODY:
            self._quiet = 0 if self._has_progressed else self._quiet + size
            is_too_long = self._overhead > MOST_OVERHEAD
            if is_too_long or self._quiet > LONGEST_TRAILERS:
                self.scope["state"]["is_too_long"] = is_too_long
                self._break_off()

    def _let_be_last(self) -> None:
        """Close the connection after the last request that was read."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _is_busy(self) -> bool:
        """Is a request being answered that is there whole?"""
        if self.pipeline:
            return True
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def _follow(self) -> None:
        """Wait for the client, or not."""
        if self._is_busy():
            if not self.flow.write_paused:
                self._slots.release(self)
        elif self not in self._slots.waiting and self not in self._slots.held:
            self._slots.wait(self, ARRIVES_WITHIN)

    def _break_off(self) -> None:
        """Tell the application that the rest of the body will not come."""
        self._is_deaf = True
        self.scope["state"]["broke_off"] = True
        self.cycle.keep_alive = self.cycle.more_body = False
        self.cycle.message_event.set()
        self._follow()

    def _wrong(self, status: HTTPStatus) -> ValueError:
        self._fault = status
        return ValueError(status.phrase)

    def _refuse(self) -> None:
        """To close at once could destroy the answer on its way, if the client still sends."""
        self._unset_keepalive_if_required()
        self.transport.write(self._refusal)
        if self._has_ended:
            self.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._slots.wait(self, LEAVES_WITHIN)

    def _tell(self, reason: str) -> None:
        """Leave a trace of what never reached the application."""
        url = self.url.decode("latin-1") if self._stage is not Stage.START else ""
        method = self.parser.get_method().decode("latin-1") if url else ""
        self._slots.note(self._address, reason, method, url)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else "a local socket"


def _answer(status: HTTPStatus) -> bytes:
    document = json.dumps({"detail": NOT_UNDERSTOOD, "status": status, "title": status.phrase})
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(document)}\r\n\r\n"
    )
    return (head + document).encode()
