"""The server accepts as many connections as there is room for, and stops when it has to."""

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
    """Answers 200, each request once `may_answer` is set; counts the requests that it has."""

    def __init__(self) -> None:
        self.requests = 0
        self.may_answer = asyncio.Event()
        self.is_wanted = True  # the server

    async def __call__(self, _: Any, __: Any, send: Any) -> None:
        self.requests += 1
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Door:
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


def serve(test: Callable[[Server, Door, Responder], Awaitable[None]], most: int = 10) -> None:
    """Run the test while a server with `most` places listens at the door."""

    async def run() -> None:
        app = Responder()
        config = uvicorn.Config(
            app, http=HttpConnection, ws="none", lifespan="off", log_config=None
        )
        config.load()
        server = Server(config, most, RequestLimits(), lambda *_: None, lambda: app.is_wanted)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            door = Door(sock)
            await server.startup([door])  # type: ignore[list-item]
            try:
                await asyncio.wait_for(test(server, door, app), PATIENCE)
            finally:
                app.may_answer.set()
                server.force_exit = True
                for connection in list(server.server_state.connections):
                    connection.transport.abort()
                await server.shutdown()

    asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition)


def connect(door: Door, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(socket.create_connection(door.getsockname(), PATIENCE))
    client.sendall(GET)
    client.setblocking(False)
    return client


async def read(client: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(client, 4096)


def test_no_connection_is_closed_for_others_while_its_request_is_answered() -> None:
    """The kernel holds those who come then."""

    async def test(server: Server, door: Door, app: Responder) -> None:
        with ExitStack() as stack:
            clients = [connect(door, stack) for _ in range(5)]
            await until(lambda: app.requests == 2)
            await until(lambda: server.is_full)
            assert len(server.server_state.connections) == 2
            app.may_answer.set()
            for client in clients:
                assert b" 200 " in await read(client)

    serve(test, most=2)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_a_descriptor_it_tries_again(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ACCEPT_RETRY_DELAY", 0)

    async def test(_: Server, door: Door, app: Responder) -> None:
        app.may_answer.set()
        door.failures = [number] * 3
        with ExitStack() as stack:
            assert b" 200 " in await read(connect(door, stack))
        assert door.failures == []

    serve(test)


def test_without_a_descriptor_who_waits_longest_is_closed() -> None:
    async def test(server: Server, door: Door, app: Responder) -> None:
        app.may_answer.set()
        with ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(door.getsockname(), PATIENCE))
                for _ in range(2)
            ]
            await until(lambda: len(server.server_state.connections) == 2)
            door.failures = [errno.EMFILE]
            assert b" 200 " in await read(connect(door, stack))
            silent[0].setblocking(False)
            assert await read(silent[0]) == b""

    serve(test)


def test_the_kernel_takes_little_of_a_response_that_is_not_read() -> None:
    async def test(server: Server, door: Door, app: Responder) -> None:
        with ExitStack() as stack:
            connect(door, stack)
            await until(lambda: app.requests == 1)
            (connection,) = server.server_state.connections
            sock = connection.transport.get_extra_info("socket")
            limit = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            assert 0 < limit <= 64 * 1024

    serve(test)


def test_it_stops_when_it_is_not_wanted_any_more() -> None:
    async def test(server: Server, _: Door, app: Responder) -> None:
        assert not await server.on_tick(1)
        app.is_wanted = False
        assert await server.on_tick(2)

    serve(test)


@pytest.fixture
def process() -> Iterator[Worker]:
    """A worker process that was not started."""
    cfg = Config()
    made = Worker(1, os.getppid(), [], None, 1, cfg, Logger(cfg))
    yield made
    made.tmp.close()


def test_a_worker_is_not_wanted_when_the_process_that_started_it_is_gone(
    process: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process.is_wanted()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not process.is_wanted()


def test_a_worker_is_not_wanted_when_its_code_has_changed(process: Worker) -> None:
    process.alive = False  # gunicorn's reloader does that
    assert not process.is_wanted()


def test_sigquit_waits_for_nobody() -> None:
    async def test(server: Server, _: Door, __: Responder) -> None:
        server.handle_exit(signal.SIGTERM, None)
        assert (server.should_exit, server.force_exit) == (True, False)
        server.handle_exit(signal.SIGQUIT, None)
        assert server.force_exit

    serve(test)


@pytest.mark.parametrize(
    ("descriptors", "expected"),
    [(1024, 512), (resource.RLIM_INFINITY, 512), (612, 512), (611, 511), (256, 156), (64, 32)],
)
def test_clients_leave_descriptors_for_the_record(descriptors: int, expected: int) -> None:
    assert connection_limit(512, descriptors) == expected


def own_hook(worker: object, request: object) -> None:
    """A function of an operator."""


@pytest.mark.parametrize(
    ("name", "value"),
    [("accesslog", "-"), ("statsd_host", "localhost:1"), ("pre_request", own_hook)],
)
def test_who_wants_to_see_every_request_is_told_that_this_needs_another_class(
    name: str, value: Any
) -> None:
    cfg = Config()
    assert not needs_gthread(cfg)
    cfg.set(name, value)
    assert needs_gthread(cfg)
