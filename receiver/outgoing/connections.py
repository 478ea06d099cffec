"""Sends one HTTP request, on a connection that is kept for the next one to the same origin.

A connection stays connected to the address that was checked when it was made. It is used again only
for the same origin and the same `allow_private`, and only if the last response was read completely
before the deadline. A request is sent at most once: an exchange whose connection breaks after the
first byte of the request was sent fails. No proxy, .netrc or cookie is used.
"""

from __future__ import annotations

import http.client
import math
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from receiver.outgoing.deadline import Deadline, watchdog
from receiver.outgoing.ssrf_guard import public_address
from receiver.outgoing.tls import context_with

# Those of `exchange`, and of reading its response.
ERRORS = (OSError, ValueError, OverflowError, HTTPError, http.client.HTTPException)
PORTS = {"http": 80, "https": 443}
HEADERS = {  # the defaults include Accept and Connection
    **requests.utils.default_headers(),
    "User-Agent": "callback-receiver",
    "Accept-Encoding": "identity",
}
MAX_IDLE_SECONDS = 4.0  # uvicorn and Node.js close an idle connection after 5
MARGIN = 1.0  # seconds by which we close a connection before the time that its server announced
MAX_AGE = 60.0  # seconds, because the name may have another address by now
MAX_IDLE = 64  # connections
SUCCESS = 200  # a response with a lower status is followed by another one
_KEEP_ALIVE = re.compile(r"timeout=([0-9]{1,9})", re.IGNORECASE)


class Origin(NamedTuple):
    """A server, and how it may be reached."""

    scheme: str
    host: str
    port: int
    allow_private: bool
    roots: str  # the path of the root certificates


class _Reply(http.client.HTTPResponse):
    """A response that makes its connection useless if other bytes follow it."""

    def _close_conn(self) -> None:
        # The stream may have buffered these bytes, so they would be lost when it is closed.
        connection = self.fp.raw._sock  # type: ignore[attr-defined] # noqa: SLF001
        connection.settimeout(0)
        with suppress(OSError):  # no bytes
            if self.fp.peek():
                connection.shutdown(socket.SHUT_RDWR)
        super()._close_conn()  # type: ignore[misc]


class OriginConnection(HTTPConnection):
    """A connection to an origin."""

    response_class = _Reply
    origin: Origin
    made_at: float
    expires_at: float  # seconds on the monotonic clock, as `made_at`

    def open(self, origin: Origin, clock: Deadline) -> None:
        """Resolve the name, check the address, connect to it, and complete the TLS handshake."""
        self.origin, self.made_at = origin, time.monotonic()
        resolve = None if origin.allow_private else public_address
        self.sock = clock.connect(origin.host, origin.port, resolve)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if origin.scheme == "https":
            self.sock.getpeername()  # if it was reset, `wrap_socket` would not close it
            context = context_with(origin.roots)
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    @property
    def is_usable(self) -> bool:
        """Whether the connection is open, and the server has sent nothing unexpected."""
        if time.monotonic() >= self.expires_at:
            return False
        self.sock.settimeout(0)
        try:
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False


class _Pool:
    """The idle connections of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[OriginConnection] = []

    def take(self, origin: Origin) -> OriginConnection | None:
        """Remove and return the connection to the origin that was used last, or return None."""
        while True:
            with self._lock:
                for connection in reversed(self._idle):
                    if connection.origin == origin:
                        self._idle.remove(connection)
                        break
                else:
                    return None
            if connection.is_usable:
                return connection
            connection.close()

    def put(self, connection: OriginConnection, keep_alive: str) -> None:
        """Keep the connection until it expires; `keep_alive` is the server's Keep-Alive header.

        If there are MAX_IDLE connections already, the oldest is closed.
        """
        now = time.monotonic()
        announced = _KEEP_ALIVE.search(keep_alive)
        idle = int(announced[1]) - MARGIN if announced else MAX_IDLE_SECONDS
        expires_at = min(now + idle, now + MAX_IDLE_SECONDS, connection.made_at + MAX_AGE)
        connection.expires_at = expires_at
        with self._lock:
            self._idle.append(connection)
            surplus = self._idle[:-MAX_IDLE]
            del self._idle[:-MAX_IDLE]
            self._schedule()
        for oldest in surplus:
            oldest.close()

    def close_expired(self, now: float | None = None) -> None:
        """Close the connections that have expired by `now`."""
        with self._lock:
            by = time.monotonic() if now is None else now
            expired = [connection for connection in self._idle if connection.expires_at <= by]
            self._idle = [connection for connection in self._idle if connection.expires_at > by]
            self._schedule()
        for connection in expired:
            connection.close()

    def _schedule(self) -> None:
        if self._idle:
            at = min([connection.expires_at for connection in self._idle])
            watchdog.call_at(self, at, self.close_expired)
        else:
            watchdog.cancel(self)

    def after_fork(self) -> None:
        """Close the descriptors in the child; the connections belong to the parent."""
        self._lock = threading.Lock()
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.after_fork)


def prepare() -> None:
    """Load the root certificates now, which the first HTTPS connection would load.

    If they cannot be read, each HTTPS request fails, but nothing else does.
    """
    with suppress(OSError):
        context_with(requests.adapters.DEFAULT_CA_BUNDLE_PATH)


def close_idle() -> None:
    """Close all idle connections of this process."""
    _pool.close_expired(math.inf)


@contextmanager
def exchange(
    method: str,
    url: str,
    clock: Deadline,
    *,
    allow_private: bool,
    reuse: bool = True,
    **content: Any,
) -> Iterator[HTTPResponse]:
    """Send one request, and yield the response before its body is read.

    `content` is what `requests.Request` accepts: headers, json or data. With `reuse`, an idle
    connection may be used, and the connection is kept if the block reads the whole body. Raises
    one of ERRORS.
    """
    request = requests.Request(method, url, **content).prepare()
    parts = urlsplit(str(request.url))
    if parts.scheme not in PORTS:
        raise ValueError("the URL is neither http nor https")
    port = parts.port or PORTS[parts.scheme]
    roots = requests.adapters.DEFAULT_CA_BUNDLE_PATH
    origin = Origin(parts.scheme, parts.hostname or "", port, allow_private, roots)
    host = parts.netloc.rpartition("@")[2].removesuffix(f":{PORTS[parts.scheme]}")
    headers = {**HEADERS, **request.headers, "Host": host}
    connection = _pool.take(origin) if reuse else None
    is_kept = False
    try:
        if connection is None:
            connection = OriginConnection(origin.host, origin.port)
            connection.open(origin, clock)
        else:
            clock.watch(connection.sock)
        connection.timeout = clock.seconds  # for each read; the deadline is earlier
        is_sent = False
        # A server may respond and close the connection before it has read the whole request.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(
                method, request.path_url, request.body, headers, preload_content=False
            )
            is_sent = True
        with connection.getresponse() as response:
            yield response
            is_complete = is_sent and response.closed and response.status >= SUCCESS
        if reuse and is_complete and connection.sock and clock.release():
            is_kept = True
            _pool.put(connection, response.headers.get("Keep-Alive", ""))
    finally:
        if connection is not None and not is_kept:
            connection.close()
