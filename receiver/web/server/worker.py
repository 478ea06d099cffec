"""uvicorn in a gunicorn worker, serving a WSGI application: `gunicorn wsgi:app`."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from gunicorn.sock import ssl_context
from uvicorn_worker import UvicornWorker

from receiver.text import limits
from receiver.web.server.booting import UNDECIDED_FOR, boots, must_stop_everything
from receiver.web.server.callback_app import CallbackApp, CallbackHandler
from receiver.web.server.connection_slots import ConnectionSlots, Note, RequestLimits
from receiver.web.server.flask_bridge import FlaskBridge
from receiver.web.server.protocol import HttpConnection

ACCEPT_BATCH = 16  # connections per loop iteration; others wait, or other processes accept them
ACCEPT_RETRY_DELAY = 0.1  # seconds, when no connection slot or file descriptor is free
COULD_NOT_START = 1  # the exit status after which gunicorn starts another worker
MAX_UNSENT = 64 * 1024  # bytes of a response that the kernel accepts before they can be sent
RESERVED_DESCRIPTORS = 100  # for the logs and the record, with a connection for each thread
SHUTDOWN_MARGIN = 1.0  # seconds before gunicorn's deadline; uvicorn cancels running requests then


class Server(uvicorn.Server):
    """uvicorn's server with a limit on connections.

    `max_connections` includes connections whose TLS handshake is in progress, but not up to
    `max_streams` connections whose responses are streams. At the limit, a new connection replaces
    the one that has waited longest for its client. If no connection is waiting for its client, new
    ones stay in the kernel's queue. The server stops when `is_wanted` returns False.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        max_connections: int,
        request_limits: RequestLimits,
        note: Note,
        is_wanted: Callable[[], bool],
        max_streams: int = limits.MAX_LISTENERS,
    ) -> None:
        super().__init__(config)
        self._is_wanted = is_wanted
        self._max_connections, self._note = max_connections, note
        self._max_streams = max_streams
        self._request_limits = request_limits
        self._handshakes: dict[asyncio.Task[Any], None] = {}  # the oldest first

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots = ConnectionSlots(self._loop, self._request_limits, self._note)
        self.servers = [_Listener(self, sock) for sock in sockets or []]  # type: ignore[misc]
        self.lifespan = self.config.lifespan_class(self.config)
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._slots.is_stopping = True
        for handshake in self._handshakes:
            self._loop.call_later(limits.CLOSE_TIMEOUT, handshake.cancel)
        await super().shutdown(sockets)
        self._slots.close()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or not self._is_wanted()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.force_exit |= sig == signal.SIGQUIT

    @property
    def is_full(self) -> bool:
        """Whether all connections are in use and none can be closed for a new one."""
        while (
            len(self.server_state.connections)
            - min(len(self._slots.streams), self._max_streams)
            + len(self._handshakes)
        ) >= self._max_connections:
            if not self.close_longest_waiting():
                return True
        return False

    def close_longest_waiting(self) -> bool:
        """Close the connection that has waited longest. Returns False if none can be closed."""
        if self._slots.close_longest_waiting():
            return True
        if not self._handshakes or not self.config.ssl:  # only TLS handshakes take time
            return False
        handshake = next(iter(self._handshakes))
        del self._handshakes[handshake]
        handshake.cancel()
        return True

    def serve_connection(self, sock: socket.socket) -> None:
        """Serve a connection that was just accepted."""
        _limit_unsent_data(sock)
        handshake = self._loop.create_task(self._connect(sock))
        self._handshakes[handshake] = None
        self.server_state.tasks.add(handshake)  # shutdown waits for it

        def done(_: object) -> None:
            self._handshakes.pop(handshake, None)
            self.server_state.tasks.discard(handshake)
            if handshake.cancelled() or handshake.exception():  # no client, or no TLS
                sock.close()

        handshake.add_done_callback(done)

    async def _connect(self, sock: socket.socket) -> None:
        timeout = limits.REQUEST_TIMEOUT if self.config.ssl else None
        await self._loop.connect_accepted_socket(
            self._protocol, sock, ssl=self.config.ssl, ssl_handshake_timeout=timeout
        )

    def _protocol(self) -> HttpConnection:
        return HttpConnection(
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
        """Stop accepting connections."""
        self._is_open = False
        self._loop.remove_reader(self._sock.fileno())

    async def wait_closed(self) -> None:
        """Do nothing: `close` has no asynchronous part."""

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            if self._server.is_full:
                self._pause()
                return
            try:
                sock, _ = self._sock.accept()
            except OSError as error:  # no connection is queued, or another process accepted it
                if (
                    error.errno in (errno.EMFILE, errno.ENFILE)
                    and not self._server.close_longest_waiting()
                ):
                    self._pause()
                return
            self._server.serve_connection(sock)

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._loop.call_later(ACCEPT_RETRY_DELAY, self._resume)

    def _resume(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._sock.fileno(), self._accept)


class Worker(UvicornWorker):  # type: ignore[misc]  # uvicorn-worker ships no types
    """Serves the WSGI application that gunicorn loads. Our callbacks bypass Flask."""

    CONFIG_KWARGS = {  # noqa: RUF012 - uvicorn_worker defines it as a class attribute
        "loop": "auto",
        "http": HttpConnection,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,  # a request line contains a token
        "server_header": False,
        "proxy_headers": False,  # TRUSTED_PROXIES decides which proxies to trust
    }

    def is_wanted(self) -> bool:
        """Return whether the arbiter still runs, and no source file has changed (`--reload`)."""
        return bool(self.alive) and os.getppid() == self.ppid

    def init_signals(self) -> None:
        super().init_signals()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):  # `run` replaces these
            signal.signal(number, lambda *_: sys.exit(0))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the arbiter

    def init_process(self) -> None:
        """Boot and serve. A worker that cannot boot does not stop the others; see `booting`."""
        try:
            super().init_process()
        except BaseException as error:
            is_stopping = isinstance(error, SystemExit) and not error.code
            if self.booted or is_stopping or not isinstance(error, Exception | SystemExit):
                raise
            boots.failed(self.age)
            if must_stop_everything(boots, self.cfg.workers, self._pause):
                # gunicorn ends with a traceback if a second worker reports this while it stops.
                if not boots.is_first_failure(self.age):
                    self._pause(UNDECIDED_FOR)
                raise
            if not isinstance(error, SystemExit):
                self.log.exception("a web worker could not start")
            self.log.error(
                "This web worker could not start. The others continue, and another one is started "
                "in %g s.",
                delay := boots.delay(),
            )
            self._pause(delay)
            sys.exit(COULD_NOT_START)

    def _pause(self, seconds: float) -> None:
        """Sleep, or exit if the arbiter is gone. The arbiter ends the worker with SIGTERM."""
        ends_at = time.monotonic() + seconds
        while os.getppid() == self.ppid and (left := ends_at - time.monotonic()) > 0:
            self.notify()
            time.sleep(min(left, 1.0))
        if os.getppid() != self.ppid:
            sys.exit(0)

    def run(self) -> None:
        boots.booted()
        if needs_gthread(self.cfg):
            self.log.warning(
                "This worker class does not support gunicorn's access log, statsd, pre_request "
                "and post_request. To use them, set --worker-class gthread."
            )
        extensions = getattr(self.wsgi, "extensions", {})  # a wrapped application has none
        callbacks: CallbackHandler | None = extensions.get("callbacks")
        rejections = extensions.get("rejections")
        note: Note = rejections.note if rejections else lambda *_: None
        config, cfg = self.config, self.cfg
        config.app = CallbackApp(callbacks, FlaskBridge(self.wsgi, cfg.threads), note)
        config.timeout_graceful_shutdown = max(0, cfg.graceful_timeout - SHUTDOWN_MARGIN)
        if cfg.is_ssl:
            config.ssl_context_factory = lambda *_: ssl_context(cfg)
        request_limits = RequestLimits(
            cfg.limit_request_line, cfg.limit_request_fields, cfg.limit_request_field_size
        )
        most = connection_limit(
            cfg.worker_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        )
        if most < cfg.worker_connections:
            self.log.warning(
                "ulimit -n leaves descriptors for %s connections, not %s",
                most,
                cfg.worker_connections,
            )
        streams = stream_limit(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        server = Server(config, most, request_limits, note, self.is_wanted, streams)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, server.handle_exit)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            for part in (callbacks, extensions.get("live")):
                if part is not None:
                    part.serve_in(runner.get_loop())
            runner.run(server.serve(sockets=self.sockets))


def _limit_unsent_data(sock: socket.socket) -> None:
    """Limit how many bytes of a response the kernel accepts before the client reads them.

    Otherwise it accepts megabytes, and a client that sends many requests and reads nothing occupies
    the threads until then. Data in transit is not limited, so fast clients are not slowed down.
    """
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)


def connection_limit(configured: int, descriptors: int) -> int:
    """Return the maximum number of connections that leaves descriptors for the record.

    `descriptors` is the number that the process may have open.
    """
    if descriptors == resource.RLIM_INFINITY:
        return configured
    return min(configured, max(descriptors - RESERVED_DESCRIPTORS, descriptors // 2))


def stream_limit(connections: int, descriptors: int) -> int:
    """Return how many streams the process can serve besides this number of connections.

    `descriptors` is the number that the process may have open.
    """
    if descriptors == resource.RLIM_INFINITY:
        return limits.MAX_LISTENERS
    return min(limits.MAX_LISTENERS, max(descriptors - RESERVED_DESCRIPTORS - connections, 0))


def needs_gthread(cfg: Any) -> bool:
    """Return whether a setting requires gthread: access log, statsd or request hooks."""
    hooks = [cfg.settings[name] for name in ("pre_request", "post_request")]
    return bool(
        cfg.accesslog or cfg.statsd_host or any(hook.get() != hook.default for hook in hooks)
    )
