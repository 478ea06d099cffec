"""Serves requests with Flask, on threads that never wait for a client.

A thread produces a part of the response and is free again. The event loop sends the part, and has
the next one produced only after the client has read it. A client that does not read therefore
occupies no thread, and memory for at most two parts. Streams of live events, and requests that wait
for a task, are served by the event loop alone; see `streams`.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from a2wsgi.wsgi import Body, build_environ
from a2wsgi.wsgi_typing import Environ, WSGIApp
from werkzeug.exceptions import HTTPException

from receiver.text import limits
from receiver.web.live.listener import HAND_OVER, WAITED, Listener, Subscriber, TaskWait
from receiver.web.server import streams

READERS = 2  # threads that read events on record for new listeners
LONGEST_PART = 64 * 1024  # bytes, unless the application itself returns a longer piece
NON_ASCII = re.compile(rb"[^\x21-\x7e]")
T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class FlaskBridge:
    """Calls a WSGI application for ASGI requests, on at most `threads` threads."""

    def __init__(self, app: WSGIApp, threads: int) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="WSGI")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="listeners")

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: bytes | HTTPException | None,
        *,
        has_more: bool,
    ) -> None:
        """Send the application's response. Raises the application's exceptions.

        An exception as `body` is raised when the application reads the body. With None, the
        application reads the body while it arrives. `has_more` means that not all of the body was
        received: the part that the application does not read is discarded, and the connection is
        closed.
        """
        if has_more:
            drain = _BodyDrain(receive, send)
            receive, send = drain.receive, drain.send
        connection = scope["state"]["connection"]
        response = _StreamedResponse(self._app, _environ(scope, receive, body))
        # One context for all parts, never used concurrently, as if the application ran on one
        # thread.
        context, lock = contextvars.copy_context(), Lock()

        def run(work: Callable[[], T]) -> T:
            with lock:  # which is only held if the request was cancelled during a part
                return context.run(work)

        def on_thread(work: Callable[[], T]) -> Awaitable[T]:
            return asyncio.get_running_loop().run_in_executor(self._threads, run, work)

        try:
            part = await on_thread(response.begin)
            if isinstance(response.handed_over, TaskWait):
                await on_thread(response.close)
                await streams.wait_in_loop(response.handed_over, connection, self._read)
                response = response.again()
                part = await on_thread(response.begin)
            await send(
                {
                    "type": "http.response.start",
                    "status": response.status,
                    "headers": response.headers,
                }
            )
            if isinstance(response.handed_over, Listener):
                await streams.stream_in_loop(response.handed_over, connection, send, self._read)
            else:
                await _send_parts(response, part, connection, send, on_thread)
        finally:
            if response.handed_over is not None:
                response.handed_over.close()
            if not response.is_complete:
                await on_thread(response.close)

    def _read(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run a function on one of the READERS threads."""
        return asyncio.get_running_loop().run_in_executor(self._readers, work)


async def _send_parts(
    response: _StreamedResponse, part: bytes, connection: Any, send: Send, on_thread: Any
) -> None:
    """Send the body, whose first part has been produced."""
    while True:
        # Sent in slices, so that the protocol can measure how fast the client reads.
        for start in range(0, max(len(part), 1), LONGEST_PART):
            end = start + LONGEST_PART
            more = end < len(part) or not response.is_complete
            piece = part[start:end]
            await send({"type": "http.response.body", "body": piece, "more_body": more})
        if response.is_complete or connection.is_gone:
            return
        part = await on_thread(response.produce)


class _StreamedResponse:
    """A response that is being produced; only one thread at a time works on it."""

    def __init__(self, app: WSGIApp, environ: Any) -> None:
        self._app, self._environ = app, environ
        self._pieces: list[bytes] = []
        self._source: Any = None  # the application's return value
        self._iterator: Iterator[bytes] = iter(())
        self.status = 0  # until the application calls `start_response`
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False

    @property
    def handed_over(self) -> Subscriber | None:
        """The listener or wait that the application passed to the event loop, or None."""
        handed_over: Subscriber | None = self._environ[HAND_OVER]
        return handed_over

    def again(self) -> _StreamedResponse:
        """Return the response of the application when it is called again after a wait."""
        return _StreamedResponse(self._app, {**self._environ, HAND_OVER: None, WAITED: True})

    def begin(self) -> bytes:
        """Call the application, and return the first part of the body."""
        self._source = self._app(self._environ, self._start_response)
        self._iterator = iter(self._source)
        return self.produce()

    def produce(self) -> bytes:
        """Return the next part of the body, and close the response after the last one."""
        size = sum(map(len, self._pieces))  # by `write`
        while size < LONGEST_PART or not self.status:
            piece = next(self._iterator, None)
            if piece is None:
                self.close()
                break
            self._pieces.append(piece)
            size += len(piece)
        if not self.status:
            raise RuntimeError("the application did not call start_response")
        part, self._pieces = b"".join(self._pieces), []
        return part

    def close(self) -> None:
        """Close the application's response: no further part of it will be read."""
        self.is_complete = True
        if self._source is not None and hasattr(self._source, "close"):
            self._source.close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], None]:
        del exc_info  # nothing has been sent yet, so the application may still replace it
        self.status = int(status.split(" ", 1)[0])
        self.headers = [
            (name.strip().lower().encode("latin-1"), value.strip().encode("latin-1"))
            for name, value in headers
        ]
        return self._write

    def _write(self, piece: bytes) -> None:
        self._pieces.append(piece)


class _BodyDrain:
    """Discards the unread part of a request body before the response ends.

    Closing the connection while the client is still sending could destroy the response in transit.
    `receive` and `send` wrap those of the server.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._is_complete = False  # no more of the body will follow

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_complete:
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif not message.get("more_body") and not self._is_complete:
            await self._send({**message, "more_body": True})
            await self._skip_body()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _skip_body(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.CLOSE_TIMEOUT):
                while not self._is_complete:
                    await self.receive()


class _UnusableBody(io.RawIOBase):
    """The body of a request whose body is too long or incomplete: reading it raises `error`."""

    def __init__(self, error: HTTPException) -> None:
        self._error = error

    def readinto(self, _: object) -> int:
        raise self._error


def _environ(scope: Scope, receive: Receive, body: bytes | HTTPException | None) -> Environ:
    """Return the WSGI environ of the request, with the parts that a2wsgi leaves out."""
    scope["query_string"] = NON_ASCII.sub(
        lambda found: b"%%%02X" % found[0][0], scope["query_string"]
    )
    stream = Body(asyncio.get_running_loop(), receive)  # type: ignore[arg-type]
    environ: Any = build_environ(scope, stream)  # type: ignore[arg-type]
    environ["wsgi.errors"] = sys.stderr
    environ["wsgi.input_terminated"] = True
    environ[HAND_OVER] = None
    environ["PATH_INFO"] = unquote_to_bytes(scope["raw_path"]).decode("latin-1")
    if isinstance(body, bytes):
        environ["wsgi.input"] = io.BytesIO(body)
    elif body is not None:
        environ["wsgi.input"] = _UnusableBody(body)
    return environ  # type: ignore[no-any-return]
