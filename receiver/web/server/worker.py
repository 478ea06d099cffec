"""uvicorn in a gunicorn worker, serving a WSGI application: `gunicorn wsgi:app`."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from gunicorn.sock import ssl_context
from uvicorn_worker import UvicornWorker

from receiver.web.server import protocol
from receiver.web.server.app import App
from receiver.web.server.callbacks import Callbacks
from receiver.web.server.protocol import Limits, Note, Protocol, Slots

ACCEPTED_AT_ONCE = 16  # clients; the rest is for the other processes, or the next turn
AGAIN_AFTER = 0.1  # seconds, when there is no room or no descriptor
KILLED_IN = 1.0  # seconds that are left when uvicorn gives up on what is under way


class Server(uvicorn.Server):
    """uvicorn's, which accepts as many connections as there is room for.

    `most`: connections, with those whose TLS handshake is under way. When all are taken, the one
    whose client is waited for longest is closed for a new one. When nobody is waited for, no more
    are accepted, and the kernel holds those who come. It stops when `is_wanted` is false.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        most: int,
        limits: Limits,
        note: Note,
        is_wanted: Callable[[], bool],
    ) -> None:
        super().__init__(config)
        self._is_wanted = is_wanted
        self._most, self._limits, self._note = most, limits, note
        self._handshakes: dict[asyncio.Task[Any], None] = {}  # the longest first

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots = Slots(self._loop, self._limits, self._note)
        self.servers = [_Listener(self, sock) for sock in sockets or []]  # type: ignore[misc]
        self.lifespan = self.config.lifespan_class(self.config)
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._slots.is_stopping = True
        for handshake in self._handshakes:
            self._loop.call_later(protocol.LEAVES_WITHIN, handshake.cancel)
        await super().shutdown(sockets)
        self._slots.close()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or not self._is_wanted()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.force_exit |= sig == signal.SIGQUIT

    @property
    def is_full(self) -> bool:
        """Are all places taken, and can nobody go?"""
        while len(self.server_state.connections) + len(self._handshakes) >= self._most:
            if not self.make_room():
                return True
        return False

    def make_room(self) -> bool:
        """Close the connection that waits longest; False if none can be closed."""
        if self._slots.make_room():
            return True
        if not self._handshakes or not self.config.ssl:  # without TLS they take no time
            return False
        handshake = next(iter(self._handshakes))
        del self._handshakes[handshake]
        handshake.cancel()
        return True

    def welcome(self, sock: socket.socket) -> None:
        """Serve who was just accepted."""
        handshake = self._loop.create_task(self._connect(sock))
        self._handshakes[handshake] = None
        self.server_state.tasks.add(handshake)  # a stop waits for it

        def done(_: object) -> None:
            self._handshakes.pop(handshake, None)
            self.server_state.tasks.discard(handshake)
            if handshake.cancelled() or handshake.exception():  # it left, or speaks no TLS
                sock.close()

        handshake.add_done_callback(done)

    async def _connect(self, sock: socket.socket) -> None:
        timeout = protocol.ARRIVES_WITHIN if self.config.ssl else None
        await self._loop.connect_accepted_socket(
            self._protocol, sock, ssl=self.config.ssl, ssl_handshake_timeout=timeout
        )

    def _protocol(self) -> Protocol:
        return Protocol(
            config=self.config,
            server_state=self.server_state,
            app_state={},
            _loop=self._loop,
            slots=self._slots,
        )


class _Listener:
    """Accepts connections on one socket."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server, self._sock = server, sock
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more."""
        self._is_open = False
        self._loop.remove_reader(self._sock.fileno())

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._server.is_full:
                self._pause()
                return
            try:
                sock, _ = self._sock.accept()
            except OSError as error:  # nobody else is there, another process was faster, …
                if error.errno in (errno.EMFILE, errno.ENFILE) and not self._server.make_room():
                    self._pause()
                return
            self._server.welcome(sock)

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._loop.call_later(AGAIN_AFTER, self._go_on)

    def _go_on(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._sock.fileno(), self._accept)


class Worker(UvicornWorker):  # type: ignore[misc]  # uvicorn-worker ships no types
    """Serves the WSGI application that gunicorn loads; its callbacks without it, if it is ours."""

    CONFIG_KWARGS = {  # noqa: RUF012 - uvicorn_worker's, an attribute of the class
        "loop": "auto",
        "http": Protocol,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,  # a request line holds a token
        "server_header": False,
        "proxy_headers": False,  # whom to believe, TRUSTED_PROXIES says
    }

    def is_wanted(self) -> bool:
        """Is the process there that started it, and is its code that of the files (`--reload`)?"""
        return bool(self.alive) and os.getppid() == self.ppid

    def init_signals(self) -> None:
        super().init_signals()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):  # until `run` is called
            signal.signal(number, _exit)

    def run(self) -> None:
        if watches(self.cfg):
            self.log.warning(
                "This worker class writes no access log, sends nothing to statsd, and calls "
                "neither pre_request nor post_request; if you need them: --worker-class gthread"
            )
        ours = getattr(self.wsgi, "extensions", {})  # an application in another has none
        callbacks: Callbacks | None = ours.get("callbacks")
        note: Note = ours["rejections"].note if "rejections" in ours else _note_nowhere
        config, cfg = self.config, self.cfg
        config.app = App(self.wsgi, callbacks, cfg.threads)
        config.timeout_graceful_shutdown = max(0, cfg.graceful_timeout - KILLED_IN)
        if cfg.is_ssl:
            config.ssl_context_factory = lambda *_: ssl_context(cfg)
        limits = Limits(
            cfg.limit_request_line, cfg.limit_request_fields, cfg.limit_request_field_size
        )
        server = Server(config, cfg.worker_connections, limits, note, self.is_wanted)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, server.handle_exit)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            if callbacks is not None:
                callbacks.serve_in(runner.get_loop())
            runner.run(server.serve(sockets=self.sockets))


def watches(cfg: Any) -> bool:
    """Is gunicorn to tell somebody of each request?"""
    hooks = [cfg.settings[name] for name in ("pre_request", "post_request")]
    return bool(
        cfg.accesslog or cfg.statsd_host or any(hook.get() != hook.default for hook in hooks)
    )


def _exit(*_: object) -> None:
    sys.exit(0)


def _note_nowhere(*_: str) -> None:
    """The application is not ours."""
