"""A failed connection to PostgreSQL leaves no socket open."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator

import psycopg
import pytest

from receiver.stores.postgres.connecting import AsyncConnection, Connection
from tests.support.patience import PATIENCE


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts connections and never responds, with garbage collection off."""
    gc.disable()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening
    gc.enable()


def url(server: socket.socket) -> str:
    return f"postgresql://tests@127.0.0.1:{server.getsockname()[1]}/tests"


def is_left(server: socket.socket) -> bool:
    """Return whether the client of the next connection has closed it."""
    client, _ = server.accept()
    return is_closed(client)


def is_closed(client: socket.socket) -> bool:
    with client:
        client.settimeout(PATIENCE)
        while client.recv(4096):  # its request
            pass
    return True


def test_a_connection_that_is_given_up_is_closed(silent: socket.socket) -> None:
    with pytest.raises(psycopg.errors.ConnectionTimeout) as held:
        Connection.connect(url(silent), connect_timeout=2)
    assert is_left(silent)
    assert held.value is not None


def test_a_connection_given_up_in_an_event_loop_is_closed(silent: socket.socket) -> None:
    with pytest.raises(psycopg.errors.ConnectionTimeout) as held:
        asyncio.run(_connect(url(silent)))
    assert is_left(silent)
    assert held.value is not None


async def _connect(to: str) -> None:
    await AsyncConnection.connect(to, connect_timeout=2)


def test_a_cancelled_connection_is_closed(silent: socket.socket) -> None:
    async def cancel() -> list[BaseException | None]:
        task = asyncio.create_task(_connect(url(silent)))
        client, _ = await asyncio.to_thread(silent.accept)
        task.cancel()
        held = await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(is_closed, client)
        return list(held)

    (error,) = asyncio.run(cancel())
    assert isinstance(error, asyncio.CancelledError)
