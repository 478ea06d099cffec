"""An HTTP/1.1 server that keeps its connections, and whose responses a test writes byte by byte."""

from __future__ import annotations

import fcntl
import re
import socket
import struct
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.hook_servers import server_tls
from tests.support.patience import PATIENCE, wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Close:
    """Send this, and close the connection."""

    last: bytes = b""


@dataclass
class Hold:
    """Send this, and nothing more until the client closes the connection."""

    first: bytes = b""


@dataclass
class Twice:
    """Send `OK`, and this when `requested` is set; set `sent` when the client has received it."""

    second: bytes
    requested: threading.Event = field(default_factory=threading.Event)
    sent: threading.Event = field(default_factory=threading.Event)


Answer = bytes | Close | Hold | Twice


@dataclass
class Served:
    """The requests that arrived on one connection."""

    socket: Any
    heads: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)  # their bodies, or their paths
    is_closed: bool = False  # by the client
    is_over: bool = False  # and the socket is closed


class PersistentSite:
    """Gives the answers in turn, whatever the connection; after them, always `OK`."""

    def __init__(self, answers: Sequence[Answer] = (), *, tls: bool = False) -> None:
        self.connections: list[Served] = []
        self.answers = list(answers)
        self._context = server_tls() if tls else None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"https://localhost:{self.port}" if tls else f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> PersistentSite:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        self.close_all()

    @property
    def requests(self) -> list[bytes]:
        """The requests on all connections."""
        return [body for served in self.connections for body in served.requests]

    def close_all(self) -> None:
        """Close the connections of all clients, which have noticed it when this returns."""
        for served in self.connections:
            with suppress(OSError):
                served.socket.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: all(served.is_over for served in self.connections))

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                connection, _ = self._listener.accept()
                served = Served(socket=connection)
                self.connections.append(served)
                # `close` returns when the client has received everything.
                linger = struct.pack("ii", 1, int(PATIENCE))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._start(self._serve, connection, served)

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        threading.Thread(target=work, args=args, daemon=True).start()

    def _serve(self, connection: socket.socket, served: Served) -> None:
        try:
            self._talk(connection, served)
        finally:
            served.is_over = True

    def _talk(self, connection: socket.socket, served: Served) -> None:
        with suppress(OSError), connection:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
                served.socket = connection
            with connection, connection.makefile("rb") as stream:
                while request := _read(stream):
                    served.heads.append(request[0])
                    served.requests.append(request[1])
                    if not self._answer(connection):
                        return
                served.is_closed = True

    def _answer(self, connection: socket.socket) -> bool:
        """Send the next answer; return whether the connection stays open."""
        answer = self.answers.pop(0) if self.answers else OK
        if isinstance(answer, bytes):
            connection.sendall(answer)
            return True
        if isinstance(answer, Twice):
            connection.sendall(OK)
            answer.requested.wait(PATIENCE)
            connection.sendall(answer.second)
            wait_until(lambda: not _in_transit(connection))
            answer.sent.set()
            return True
        connection.sendall(answer.last if isinstance(answer, Close) else answer.first)
        while isinstance(answer, Hold) and connection.recv(4096):
            pass
        return False


def _in_transit(connection: socket.socket) -> int:
    """Return the number of bytes that the client has not received yet."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def _read(stream: Any) -> tuple[bytes, bytes] | None:
    """Return the head and the body of the next request; None if the client has gone.

    A request without a body has its path instead.
    """
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return head, stream.read(int(length[1])) if length else head.split(b" ")[1]
