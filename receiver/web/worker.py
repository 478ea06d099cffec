"""gunicorn's threads, kept from slow senders: a thread gets a request that has arrived.

Stock gthread gives a thread to every connection, and the thread waits: 32 connections that send a
byte now and then hold all of them. Here the main loop, which waits for all connections at once,
collects the bytes of a request; a thread never waits for more of them, except for bodies so long
that only the API takes them, from those who know its token.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import http, util
from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidRequestLine,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker
from werkzeug.exceptions import RequestEntityTooLarge

from receiver.errors import StoreUnavailable
from receiver.web.arrival import LONGEST_HEAD, Arrival, Reach

ARRIVES_WITHIN = 20.0  # seconds; 256 KB at 100 kbit/s
LONG_ARRIVES_WITHIN = 120.0  # seconds; 30 MB, with the API's token
ANSWER_IS_TAKEN_WITHIN = 10.0  # seconds for each write: who does not read holds a thread, too
LEAVES_WITHIN = 2.0  # seconds; for a client that still sends to read its answer, and at SIGTERM
READ_AT_ONCE = 64 * 1024
ACCEPTED_AT_ONCE = 16  # clients; the rest is for the other processes, or the next round
PARSED_AT_ONCE = 8 * 1024  # gunicorn copies what is left of a piece for every chunk in it
NOT_UNDERSTOOD = "The request is not HTTP, or its head is too long."
WAS_IT_TLS = "no HTTP came; was TLS sent to a port that speaks none?"
TOO_SLOW = f"it did not arrive whole within {ARRIVES_WITHIN:g} s"
LONGEST_LINE = 4096  # bytes of a request's first line that are looked at
_STATUS = {
    LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class Connection(TConn):  # type: ignore[misc]  # gunicorn ships no types
    """A client, with what arrived of its request."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.parser = http.get_parser(self.cfg, self.sock, self.client)
        self.data_ready = True
        self.until = 0.0  # by the monotonic clock; then it is closed
        self.leaves = False  # answered: what still comes is thrown away
        self.failure: StoreUnavailable | None = None  # of the commit that its callback waited for
        self.reach = Reach.PART
        self.begin(b"")

    def begin(self, start: bytes) -> None:
        """Collect the next request, which may have come behind the one before."""
        self.arrival = Arrival()
        self.reach = self.arrival.add(start) if start else Reach.PART

    def hand_over(self) -> None:
        """Let the parser read what arrived, and not the socket."""
        self.parser.unreader = IterUnreader(self._pieces())

    def take_over(self) -> bytes:
        """What the parser did not need: the next request, or its beginning."""
        unreader = self.parser.unreader
        return bytes(unreader.take_buffered() + b"".join(unreader.iter or ()))

    def _pieces(self) -> Iterator[bytes]:
        data = bytes(self.arrival.data)
        if self.reach is Reach.NOT_HTTP:
            raise InvalidRequestLine(WAS_IT_TLS)
        if self.reach is Reach.ENDLESS_HEAD:
            data = data[:LONGEST_HEAD]
        for at in range(0, len(data), PARSED_AT_ONCE):
            yield data[at : at + PARSED_AT_ONCE]
        if self.reach is Reach.ENDLESS_HEAD:
            raise LimitRequestHeaders("")
        if self.reach is Reach.ENDLESS_CHUNKS:
            raise RequestEntityTooLarge("Send less, or a Content-Length.")
        if self.reach is Reach.LONG:
            yield from self._rest()

    def _rest(self) -> Iterator[bytes]:
        """The rest of a long body; cut off where it takes too long, as by a client that left."""
        end = time.monotonic() + LONG_ARRIVES_WITHIN
        with suppress(OSError):
            while time.monotonic() < end:
                yield self.sock.recv(READ_AT_ONCE)


class _Wakings(PollableMethodQueue):  # type: ignore[misc]
    """What threads tell the main loop, through a pipe that lasts as long as the process.

    gunicorn closes it while threads may still be at work: what they then write to its number could
    go into the file that has got this number since, such as the database.
    """

    def close(self) -> None:
        """The process ends anyway."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """ThreadWorker whose main loop waits, and whose threads work."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method_queue = _Wakings()
        self.waiting: dict[Connection, None] = {}  # in the main loop, for bytes; longest first
        self.sweep_at = 0.0

    def accept(self, listener: socket.socket) -> None:
        """Wait for what new clients send; when the house is full, who waited longest goes."""
        if self.cfg.is_ssl:  # its bytes are not for us to read: stock gthread serves it
            super().accept(listener)
            return
        for _ in range(ACCEPTED_AT_ONCE):
            if self.nr_conns >= self.worker_connections:  # and nobody can go
                return
            try:
                sock, client = listener.accept()
            except OSError as error:  # nobody else is there, another process was faster, …
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._close_longest()
                return
            self.nr_conns += 1
            self._wait(Connection(self.cfg, sock, client, listener.getsockname()), ARRIVES_WITHIN)
            self._make_room()

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Wait for the next request of the connection, or for the client to leave it."""
        if self.cfg.is_ssl:
            super().finish_request(conn, fs)
            return
        keeps = not (fs.cancelled() or fs.exception()) and bool(fs.result())
        if keeps:
            conn.begin(conn.take_over())
        self._follow(conn, keeps=keeps)

    def _follow(self, conn: Connection, *, keeps: bool) -> None:
        """Go on with a connection whose request was answered, and whose next one has begun."""
        if conn.sock.fileno() < 0:  # gunicorn closed it: its answer broke off
            self.nr_conns -= 1
            return
        conn.sock.setblocking(False)
        if not keeps:
            conn.leaves = True  # to close at once could destroy the answer on its way
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_WR)
            self._wait(conn, LEAVES_WITHIN)
        elif conn.reach is Reach.PART:
            self._wait(conn, ARRIVES_WITHIN if conn.arrival.data else self.cfg.keepalive)
            self._welcome(conn)
        else:
            self._give(conn)

    def murder_pending(self) -> None:
        """Close who took too long; gunicorn's loop calls this after every event."""
        super().murder_pending()  # those by TLS
        self._make_room()
        now = time.monotonic()
        if now < self.sweep_at:
            return
        self.sweep_at = now + 0.5
        latest = float("inf") if self.alive else now + LEAVES_WITHIN
        for conn in list(self.waiting):
            conn.until = min(conn.until, latest)
            if conn.until <= now:
                if conn.arrival.data and not conn.leaves:
                    self._note(conn.client, TOO_SLOW, bytes(conn.arrival.data[:LONGEST_LINE]))
                self._close(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer in a thread; the connection ends with a request that is not there whole."""
        if not isinstance(conn, Connection):  # by TLS
            return super().handle_request(req, conn)
        if conn.reach is not Reach.LONG:
            req._expected_100_continue = False  # noqa: SLF001 - `_read` has said it
        if conn.reach is not Reach.WHOLE:
            req.force_close()
        conn.sock.settimeout(ANSWER_IS_TAKEN_WITHIN)
        try:
            return super().handle_request(req, conn)
        except TimeoutError as error:
            raise NoMoreData from error  # the client's fault: gunicorn logs no traceback

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:  # noqa: ARG002
        """Answer what is not HTTP. gunicorn's own way shows the request line, token and all."""
        status, kind = HTTPStatus.INTERNAL_SERVER_ERROR, type(exc).__name__
        if isinstance(exc, ParseException):
            status = _STATUS.get(type(exc), HTTPStatus.BAD_REQUEST)
            self.log.warning("Not HTTP, from %s: %s", _host(addr), kind)
            is_tls = isinstance(exc, InvalidRequestLine) and exc.req == WAS_IT_TLS
            self._note(addr, WAS_IT_TLS if is_tls else f"{NOT_UNDERSTOOD} {kind}")
        else:
            self.log.error("A request broke: %s", kind, exc_info=exc)
        with suppress(OSError):
            util.write_nonblock(client, _answer(status))

    def _note(self, address: Any, reason: str, start: bytes = b"") -> None:
        """Leave a trace of what never reached the application."""
        method, _, rest = start.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path = rest.rpartition(" ")[0] or rest
        known = getattr(self.wsgi, "extensions", {})  # an application in another has none
        if "rejections" in known:
            known["rejections"].note(_host(address), reason, method, path)

    def _wait(self, conn: Connection, seconds: float) -> None:
        conn.until = time.monotonic() + seconds
        self.waiting[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read, conn))

    def _read(self, conn: Connection, sock: socket.socket) -> None:
        """Take what came; a request that is there goes to a thread."""
        if conn not in self.waiting:  # it was closed by an event of the same round
            return
        try:
            piece = sock.recv(READ_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            conn.leaves, piece = True, b""
        if conn.leaves or not (piece or conn.arrival.data):
            if not piece:
                self._close(conn)
            return
        if not conn.arrival.data:
            conn.until = time.monotonic() + ARRIVES_WITHIN
        # An end before it is whole is for the parser and the application to name.
        conn.reach = conn.arrival.add(piece) if piece else Reach.WHOLE
        if conn.reach is not Reach.PART:
            self._stop_waiting(conn)
            self._give(conn)
        else:
            self._welcome(conn)

    def _welcome(self, conn: Connection) -> None:
        """Tell who waits to be told that its body may come."""
        if conn.arrival.wants_continue:
            conn.arrival.wants_continue = False
            with suppress(OSError):
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _give(self, conn: Connection) -> None:
        conn.hand_over()
        self.enqueue_req(conn)

    def _stop_waiting(self, conn: Connection) -> None:
        del self.waiting[conn]
        self.poller.unregister(conn.sock)

    def _close(self, conn: Connection) -> None:
        self._stop_waiting(conn)
        self.nr_conns -= 1
        conn.close()

    def _make_room(self) -> None:
        """Close who waits longest, while all places are taken; not the last, who may be new.

        When nobody else can go, no more are accepted, and the kernel holds those who come.
        """
        while self.nr_conns >= self.worker_connections and len(self.waiting) > 1:
            self._close_longest()

    def _close_longest(self) -> None:
        for conn in self.waiting:
            self._close(conn)
            break


def _host(address: Any) -> str:
    return str(address[0]) if isinstance(address, tuple) else "a local socket"


def _answer(status: HTTPStatus) -> bytes:
    document = json.dumps({"title": status.phrase, "status": status, "detail": NOT_UNDERSTOOD})
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(document)}\r\n\r\n"
    )
    return (head + document).encode()
