"""Simulates connections to the HTTP server, without sockets and with a controlled clock."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn

from receiver.web.server.connection_slots import ConnectionSlots, RequestLimits
from receiver.web.server.protocol import HttpConnection

CLIENT = ("192.0.2.1", 5000)
HIGH_WATER = 64 * 1024  # bytes in the buffer at which a transport calls `pause_writing`
LOW_WATER = 16 * 1024  # bytes at which it calls `resume_writing`
STEP = 0.1  # seconds by which `pass_time` advances the clock at a time


class ScriptedLoop(asyncio.SelectorEventLoop):
    """An event loop that runs, and whose clock advances, only when the test calls it."""

    now = 1000.0

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Run all callbacks that are due, and those that they schedule."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:  # type: ignore[attr-defined]
                assert self.failures == []
                return

    def pass_time(self, seconds: float) -> None:
        """Advance the clock in small steps, and run each timer when it is due."""
        self.settle()
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + STEP)
            self.call_soon(self.stop)
            self.run_forever()
        self.settle()


class ScriptedTransport(asyncio.Transport):
    """The server's transport of a connection, and the data that the client has received.

    While `reads` is false, the client reads nothing, and written data stays in the buffer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, tls: bool = False) -> None:
        super().__init__({"peername": CLIENT, "sockname": ("192.0.2.9", 8000)})
        self.loop, self.tls = loop, tls
        self.protocol: Any = None
        self.received, self.buffer = bytearray(), bytearray()
        self.reads = True
        self.is_full = self.is_paused = self.was_aborted = self.has_ended = False
        self._is_closing = self._is_lost = self._is_gone = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return object() if self.tls else default
        return super().get_extra_info(name, default)

    # -- called by the server

    def write(self, data: Any) -> None:
        assert not self.has_ended, "nothing may be written after write_eof"
        if self._is_gone:
            raise RuntimeError("the handler is closed")  # as uvloop does
        if self._is_lost:
            return
        self.buffer += data
        self._flush()
        if len(self.buffer) > HIGH_WATER and not self.is_full:
            self.is_full = True
            self.protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return not self.tls

    def write_eof(self) -> None:
        self.has_ended = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True
        self._flush()

    def abort(self) -> None:
        self._is_closing = self.was_aborted = True
        self.buffer.clear()
        self._lose(None)

    # -- actions of the client

    @property
    def is_closed(self) -> bool:
        """Whether the client can see that the connection is closed."""
        return self._is_lost

    def read(self) -> None:
        """The client reads everything that was sent, and continues to read."""
        self.reads = True
        self._flush()

    def read_some(self, size: int) -> None:
        """The client reads up to `size` bytes, and then nothing more."""
        self.received += self.buffer[:size]
        del self.buffer[:size]
        if self.is_full and len(self.buffer) <= LOW_WATER:
            self.is_full = False
            self.protocol.resume_writing()
        if self._is_closing and not self.buffer:
            self._lose(None)

    def leave(self, error: Exception | None = None) -> None:
        """The client resets the connection."""
        self._is_closing = True
        self._lose(error)

    def half_close(self) -> None:
        """The client closes its side of the connection for sending."""
        if not self._is_closing and not self.protocol.eof_received():
            self.close()

    def _flush(self) -> None:
        if not self.reads:
            return
        self.received += self.buffer
        self.buffer.clear()
        if self.is_full:
            self.is_full = False
            self.protocol.resume_writing()
        if self._is_closing:
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = True
            self.loop.call_soon(self._notify_lost, error)

    def _notify_lost(self, error: Exception | None) -> None:
        self._is_gone = True
        self.protocol.connection_lost(error)


class ScriptedServer:
    """Serves an ASGI application to connections without sockets."""

    def __init__(self, app: Any, limits: RequestLimits | None = None) -> None:
        self.loop = ScriptedLoop()
        self.notes: list[tuple[str, ...]] = []
        self.slots = ConnectionSlots(self.loop, limits or RequestLimits(), self._note)
        self.config = uvicorn.Config(
            app,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            server_header=False,
        )
        self.config.load()
        self.state = uvicorn.server.ServerState()

    def connect(self, *, tls: bool = False) -> Client:
        """Returns a client that has just connected."""
        transport = ScriptedTransport(self.loop, tls=tls)
        protocol = transport.protocol = HttpConnection(
            config=self.config,
            server_state=self.state,
            app_state={},
            _loop=self.loop,
            slots=self.slots,
        )
        protocol.connection_made(transport)
        return Client(self.loop, transport)

    def stop(self) -> None:
        """Shut down the connections, as the server does after a SIGTERM."""
        self.slots.is_stopping = True
        for connection in list(self.state.connections):
            connection.shutdown()
        self.loop.settle()

    def close(self) -> None:
        self.slots.close()
        for task in list(self.state.tasks):
            task.cancel()
        self.loop.settle()
        self.loop.close()

    def _note(self, *rejection: str) -> None:
        self.notes.append(rejection)


class Client:
    """A client that sends data in pieces, each of which the server reads separately."""

    def __init__(self, loop: ScriptedLoop, transport: ScriptedTransport) -> None:
        self.loop, self.transport = loop, transport
        self._unsent: list[bytes] = []

    def send(self, *pieces: bytes) -> None:
        self._unsent += pieces
        self.loop.settle()
        while self._unsent and not self.transport.is_paused and not self.transport.is_closing():
            self.transport.protocol.data_received(self._unsent.pop(0))
            self.loop.settle()

    def send_in_one_turn(self, *pieces: bytes) -> None:
        """Send several pieces, all of which the server reads in one loop iteration."""
        for piece in pieces:
            if not self.transport.is_closing():
                self.transport.protocol.data_received(piece)
        self.loop.settle()

    def half_close(self) -> None:
        self.transport.half_close()
        self.loop.settle()

    def leave(self, error: Exception | None = None) -> None:
        self.transport.leave(error)
        self.loop.settle()

    def read(self) -> None:
        self.transport.read()
        self.loop.settle()

    @property
    def received(self) -> bytes:
        return bytes(self.transport.received)

    def is_closed(self) -> bool:
        return self.transport.is_closed


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
