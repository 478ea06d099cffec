"""Many clients that each begin a request and never finish it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle, islice

from tests.support.gunicorn_processes import has_unread_bytes
from tests.support.patience import PATIENCE, wait_until

HANDSHAKE = b"\x16\x03\x01"  # the beginning of a TLS handshake
SILENT = {b"", HANDSHAKE}  # with any further byte it would be neither HTTP nor TLS


class SlowSenders:
    """Connections to one server. Each sends a further byte when the test calls `send_a_byte`.

    Those that began with one of SILENT send nothing more.
    """

    def __init__(self, port: int, connections: Sequence[socket.socket]) -> None:
        self._port, self._connections = port, connections

    def send_a_byte(self) -> None:
        """Send one byte on each connection, and wait until the server has read all of them."""
        for connection in self._connections:
            with suppress(OSError):  # closed by the server, or its buffer is full
                connection.send(b"x")
        wait_until(lambda: not has_unread_bytes(self._port))


@contextmanager
def slow_senders(
    port: int, starts: Sequence[bytes], count: int, tls: ssl.SSLContext | None = None
) -> Iterator[SlowSenders]:
    """Yield `count` connections that begin with these bytes in turn, which the server has read.

    With `tls`, the bytes are sent after a handshake, except for those that begin a handshake.
    """
    with ExitStack() as stack:
        connections = []
        for start in islice(cycle(starts), count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            with suppress(OSError):  # already closed by the server, to free connections for others
                if tls is not None and not start.startswith(HANDSHAKE):
                    connection = tls.wrap_socket(connection)
                connection.sendall(start)
            stack.enter_context(connection)
            connection.setblocking(False)
            if start not in SILENT:
                connections.append(connection)
        senders = SlowSenders(port, connections)
        senders.send_a_byte()
        yield senders
