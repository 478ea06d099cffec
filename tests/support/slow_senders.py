"""Clients that send a byte now and then, many at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle, islice

PAUSE = 0.25  # seconds between two bytes of each


@contextmanager
def dripping(port: int, starts: Sequence[bytes], count: int) -> Iterator[list[socket.socket]]:
    """`count` connections that begin with these bytes in turn, and then send one at a time."""
    connections: list[socket.socket] = []
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(PAUSE):
            for connection in connections:
                with suppress(OSError):  # closed by the server, or its buffer is full
                    connection.send(b"x")

    thread = threading.Thread(target=drip)
    try:
        for start in islice(cycle(starts), count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            connection.sendall(start)
            connection.setblocking(False)
            connections.append(connection)
        thread.start()
        yield connections
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()
        for connection in connections:
            connection.close()
