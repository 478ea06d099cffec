"""The endpoint of the hooks: accepts everything immediately, and records the arrival times."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import ROOT

CERTIFICATE = ROOT / "tests" / "data" / "tls" / "cert.pem"  # for localhost
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
NAME = re.compile(rb"\r\nwebhook-id: *([^\r]+)", re.IGNORECASE)


class Sink:
    """`came`: the identity of each message, and the time (perf_counter) of its first bytes."""

    def __init__(self) -> None:
        self.port = 0
        self.count = 0
        self.came: dict[str, float] = {}


class _Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink, self._data, self._began = sink, b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._began = self._began if self._data else time.perf_counter()
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = LENGTH.search(head)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._data) < size:
                return
            self._data = self._data[size:]
            self._sink.count += 1
            if name := NAME.search(head):
                self._sink.came.setdefault(name[1].decode(), self._began)
            self._transport.write(ANSWER)


@contextmanager
def sink(*, tls: bool = False) -> Iterator[Sink]:
    """Serve in a thread on a free port."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
    found, loop, up = Sink(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        server = await loop.create_server(lambda: _Connection(found), "127.0.0.1", 0, ssl=context)
        found.port = server.sockets[0].getsockname()[1]
        up.set()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    up.wait(10)
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
