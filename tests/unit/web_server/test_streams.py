"""Streams have their own limit, last as long as their clients read, and end on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from receiver.text.limits import WRITE_TIMEOUT
from receiver.web.live.listener import Listener, TaskWait
from receiver.web.server import streams
from receiver.web.server.worker import stream_limit
from tests.support.patience import PATIENCE
from tests.support.scripted_connection import Client, ScriptedServer

GET = b"GET /api/events HTTP/1.1\r\nHost: receiver\r\n\r\n"
PART = b"x" * 100_000  # more than the server buffers before it waits for the client
DAY = 86_400.0


@dataclass
class Streaming:
    """Begins a stream, and sends a part when the test requests it, until the stream ends."""

    is_ended: bool = False
    connection: Any = None
    wanted: list[asyncio.Future[bytes | None]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        self.connection = scope["state"]["connection"]
        self.connection.begin_stream(self.end)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            self.wanted.append(asyncio.get_running_loop().create_future())
            part = await self.wanted[-1]
            if part is None:
                break
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await self.connection.wait_until_read()
        await send({"type": "http.response.body", "body": b""})
        self.connection.finish_stream()

    def end(self) -> None:
        self.is_ended = True
        self.send(None)

    def send(self, part: bytes | None) -> None:
        if not self.wanted[-1].done():
            self.wanted[-1].set_result(part)


@pytest.fixture
def application() -> Streaming:
    return Streaming()


@pytest.fixture
def server(application: Streaming) -> Iterator[ScriptedServer]:
    server = ScriptedServer(application)
    yield server
    server.close()


@pytest.fixture
def client(server: ScriptedServer) -> Client:
    client = server.connect()
    client.send_in_one_turn(GET)
    return client


def pass_on(server: ScriptedServer, application: Streaming, part: bytes) -> None:
    application.send(part)
    server.loop.settle()


def test_a_silent_stream_is_not_cut(server: ScriptedServer, client: Client) -> None:
    server.loop.pass_time(WRITE_TIMEOUT * 3)
    assert not client.is_closed()


def test_a_stream_may_pause_again_after_a_long_time(
    server: ScriptedServer, client: Client, application: Streaming
) -> None:
    """The client has the full time to read after each pause."""
    for _ in range(3):
        client.transport.reads = False
        pass_on(server, application, PART)
        server.loop.pass_time(WRITE_TIMEOUT - 2)
        client.transport.read()
        server.loop.settle()
        server.loop.pass_time(WRITE_TIMEOUT * 2)
        assert not client.is_closed()


def test_a_stream_whose_client_reads_nothing_is_cut(
    server: ScriptedServer, client: Client, application: Streaming
) -> None:
    client.transport.reads = False
    pass_on(server, application, PART)
    server.loop.pass_time(WRITE_TIMEOUT + 1)
    assert client.transport.was_aborted
    assert application.is_ended
    assert not server.slots.streams


def test_a_stream_whose_client_reads_very_slowly_is_cut(
    server: ScriptedServer, client: Client, application: Streaming
) -> None:
    client.transport.reads = False
    pass_on(server, application, PART)
    for _ in range(20):
        server.loop.pass_time(1)
        client.transport.read_some(100)
    assert client.transport.was_aborted


@pytest.mark.parametrize("leave", ["leave", "half_close"])
def test_a_client_that_leaves_ends_its_stream(
    server: ScriptedServer, client: Client, application: Streaming, leave: str
) -> None:
    getattr(client.transport, leave)()
    server.loop.settle()
    assert application.is_ended
    assert not server.slots.streams


def test_a_stop_ends_a_stream_completely(
    server: ScriptedServer, client: Client, application: Streaming
) -> None:
    pass_on(server, application, b"part")
    server.stop()
    assert application.is_ended
    assert client.received.endswith(b"part\r\n0\r\n\r\n")
    assert client.is_closed()


def test_a_stream_that_begins_during_a_stop_is_ended(
    server: ScriptedServer, application: Streaming
) -> None:
    server.slots.is_stopping = True
    client = server.connect()
    application.wanted.append(server.loop.create_future())
    client.send_in_one_turn(GET)
    assert application.is_ended


@pytest.mark.parametrize(
    ("connections", "descriptors", "streams"),
    [(512, 1024, 100), (512, 700, 88), (156, 256, 0), (512, -1, 100)],
)
def test_streams_leave_descriptors_for_the_record(
    connections: int, descriptors: int, streams: int
) -> None:
    assert stream_limit(connections, descriptors) == streams


# -- the body


class Connection:
    """The part of a connection that streams use."""

    def __init__(self) -> None:
        self.is_gone = self.was_aborted = False
        self.end: Callable[[], object] = lambda: None

    def begin_stream(self, end: Callable[[], object]) -> None:
        self.end = end

    def finish_stream(self) -> None: ...

    async def wait_until_read(self) -> None: ...

    def abort(self) -> None:
        self.was_aborted = self.is_gone = True
        self.end()


class Scripted(Listener):
    """A listener whose text the test sets; without text, it sends a heartbeat immediately."""

    silence = 0.0

    def __init__(self, *texts: bytes) -> None:
        super().__init__(_NoFeed())
        self.texts = list(texts)
        self.beats = 0

    def pages(self) -> Iterator[bytes]:
        yield b"page"

    def take(self) -> bytes:
        return self.texts.pop(0) if self.texts else b""

    def heartbeat(self) -> bytes:
        self.beats += 1
        if self.beats == 3:
            self.end()
        return b"beat"


class _NoFeed:
    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


async def directly(work: Callable[[], Any]) -> Any:
    return work()


def sent_by(listener: Listener, connection: Connection) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def limited() -> None:
        async with asyncio.timeout(PATIENCE):
            await streams.stream_in_loop(listener, connection, send, directly)

    asyncio.run(limited())
    return sent


def test_pages_come_first_then_events_then_heartbeats() -> None:
    sent = sent_by(Scripted(b"one", b"two"), Connection())
    assert [message["body"] for message in sent] == [
        b"page", b"one", b"two", b"beat", b"beat", b"beat", b"",
    ]  # fmt: skip
    assert [message["more_body"] for message in sent] == [True] * 6 + [False]


def test_a_listener_that_falls_behind_is_disconnected() -> None:
    connection = Connection()

    class Behind(Scripted):
        def heartbeat(self) -> bytes:
            self.is_behind = self.is_ended = True
            self.notice_in_loop()
            return b""

    sent = sent_by(Behind(), connection)
    assert connection.was_aborted
    assert all(message["more_body"] for message in sent)  # the body remains incomplete


def test_a_wait_ends_when_its_task_ends_or_its_time_is_over() -> None:
    async def scenario() -> None:
        for end in (True, False):
            wait = TaskWait(_NoFeed(), "t1", PATIENCE if end else 0.0)

            async def join(work: Callable[[], Any], wait: TaskWait = wait, end: bool = end) -> Any:
                work()
                if end:
                    wait.end()

            with suppress(asyncio.CancelledError):
                await streams.wait_in_loop(wait, Connection(), join)
            assert wait.is_ended

    asyncio.run(scenario())
