"""The server accepts as many connections as it has slots, and stops when necessary."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import uvicorn
from gunicorn.config import Config
from gunicorn.glogging import Logger

from receiver.web.server import worker
from receiver.web.server.connection_slots import RequestLimits
from receiver.web.server.protocol import HttpConnection
from receiver.web.server.worker import Server, Worker, connection_limit, needs_gthread
from tests.support.patience import PATIENCE, wait_until

GET = b"GET / HTTP/1.1\r\nHost: receiver\r\n\r\n"


class Responder:
    """Responds with 200 to each request once `may_answer` is set; counts the current requests."""

    def __init__(self) -> None:
        self.requests = 0
        self.may_answer = asyncio.Event()
        self.is_wanted = True  # the server

    async def __call__(self, _: Any, __: Any, send: Any) -> None:
        self.requests += 1
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Listener:
    """A listening socket whose next `failures` accepts fail."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.failures: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            raise OSError(self.failures.pop(), "scripted")
        return self._sock.accept()


def serve(test: Callable[[Server, Listener, Responder], Awaitable[None]], most: int = 10) -> None:
    """Run the test while a server with `most` slots listens."""

    async def run() -> None:
        app = Responder()
        config = uvicorn.Config(
            app, http=HttpConnection, ws="none", lifespan="off", log_config=None
        )
        config.load()
        server = Server(config, most, RequestLimits(), lambda *_: None, lambda: app.is_wanted)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            listener = Listener(sock)
            await server.startup([listener])  # type: ignore[list-item]
            try:
                await asyncio.wait_for(test(server, listener, app), PATIENCE)
            finally:
                app.may_answer.set()
                server.force_exit = True
                for connection in list(server.server_state.connections):
                    connection.transport.abort()
                await server.shutdown()

    asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition)


def connect(listener: Listener, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(socket.create_connection(listener.getsockname(), PATIENCE))
    client.sendall(GET)
    client.setblocking(False)
    return client


async def read(client: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(client, 4096)


def test_no_connection_is_closed_for_others_while_its_request_is_handled() -> None:
    """The kernel queues the new connections meanwhile."""

    async def test(server: Server, listener: Listener, app: Responder) -> None:
        with ExitStack() as stack:
            clients = [connect(listener, stack) for _ in range(5)]
            await until(lambda: app.requests == 2)
            await until(lambda: server.is_full)
            assert len(server.server_state.connections) == 2
            app.may_answer.set()
            for client in clients:
                assert b" 200 " in await read(client)

    serve(test, most=2)


def test_streams_do_not_count_towards_the_connections() -> None:
    async def test(server: Server, listener: Listener, app: Responder) -> None:
        streams: set[Any] = set()
        with ExitStack() as stack:
            for number in range(1, 4):
                connect(listener, stack)
                await until(lambda number=number: app.requests == number)  # type: ignore[misc]
                (connection,) = server.server_state.connections - streams
                assert isinstance(connection, HttpConnection)
                connection.begin_stream(lambda: None)
                streams.add(connection)
            callbacks = [connect(listener, stack) for _ in range(2)]
            await until(lambda: app.requests == 5)
            await until(lambda: server.is_full)
            app.may_answer.set()
            for client in callbacks:
                assert b" 200 " in await read(client)

    serve(test, most=2)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_accepting_is_retried_without_a_free_descriptor(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ACCEPT_RETRY_DELAY", 0)

    async def test(_: Server, listener: Listener, app: Responder) -> None:
        app.may_answer.set()
        listener.failures = [number] * 3
        with ExitStack() as stack:
            assert b" 200 " in await read(connect(listener, stack))
        assert listener.failures == []

    serve(test)


def test_without_a_free_descriptor_the_longest_waiting_connection_is_closed() -> None:
    async def test(server: Server, listener: Listener, app: Responder) -> None:
        app.may_answer.set()
        with ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(listener.getsockname(), PATIENCE))
                for _ in range(2)
            ]
            await until(lambda: len(server.server_state.connections) == 2)
            listener.failures = [errno.EMFILE]
            assert b" 200 " in await read(connect(listener, stack))
            silent[0].setblocking(False)
            assert await read(silent[0]) == b""

    serve(test)


def test_the_kernel_buffers_little_of_a_response_that_is_not_read() -> None:
    async def test(server: Server, listener: Listener, app: Responder) -> None:
        with ExitStack() as stack:
            connect(listener, stack)
            await until(lambda: app.requests == 1)
            (connection,) = server.server_state.connections
            sock = connection.transport.get_extra_info("socket")
            limit = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            assert 0 < limit <= 64 * 1024

    serve(test)


def test_the_server_stops_when_it_is_no_longer_wanted() -> None:
    async def test(server: Server, _: Listener, app: Responder) -> None:
        assert not await server.on_tick(1)
        app.is_wanted = False
        assert await server.on_tick(2)

    serve(test)


@pytest.fixture
def process() -> Iterator[Worker]:
    """A worker process that was not started."""
    cfg = Config()
    process = Worker(1, os.getppid(), [], None, 1, cfg, Logger(cfg))
    yield process
    process.tmp.close()


def test_a_worker_stops_when_its_parent_process_has_ended(
    process: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process.is_wanted()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not process.is_wanted()


def test_a_worker_stops_when_its_code_has_changed(process: Worker) -> None:
    process.alive = False  # as gunicorn's reloader does
    assert not process.is_wanted()


def test_sigquit_waits_for_no_request() -> None:
    async def test(server: Server, _: Listener, __: Responder) -> None:
        server.handle_exit(signal.SIGTERM, None)
        assert (server.should_exit, server.force_exit) == (True, False)
        server.handle_exit(signal.SIGQUIT, None)
        assert server.force_exit

    serve(test)


@pytest.mark.parametrize(
    ("descriptors", "expected"),
    [(1024, 512), (resource.RLIM_INFINITY, 512), (612, 512), (611, 511), (256, 156), (64, 32)],
)
def test_some_descriptors_are_reserved_for_the_record(descriptors: int, expected: int) -> None:
    assert connection_limit(512, descriptors) == expected


def own_hook(worker: object, request: object) -> None:
    """A function that an operator defined."""


@pytest.mark.parametrize(
    ("name", "value"),
    [("accesslog", "-"), ("statsd_host", "localhost:1"), ("pre_request", own_hook)],
)
def test_settings_that_inspect_every_request_need_another_worker_class(
    name: str, value: Any
) -> None:
    cfg = Config()
    assert not needs_gthread(cfg)
    cfg.set(name, value)
    assert needs_gthread(cfg)
