"""Runs a WSGI application on threads that never wait for a client to read its response.

A thread produces a part of the response and is free again. The event loop sends the part, and has
the next one produced only after the client has read. So a client that does not read occupies no
thread, and memory for two parts at the most.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from a2wsgi.wsgi_typing import Environ, WSGIApp

LONGEST_PART = 64 * 1024  # bytes, unless the application itself returns a longer piece
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")


class WsgiThreads:
    """Serves requests with a WSGI application, on at most `threads` threads."""

    def __init__(self, app: WSGIApp, threads: int) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="WSGI")

    async def serve(self, environ: Environ, send: Send, is_gone: Callable[[], bool]) -> None:
        """Send the application's response. Produces no further part if `is_gone()` is true.

        Raises what the application raises.
        """
        response = _StreamedResponse(self._app, environ)
        # One context for all parts, and never two at once, as if the application ran on one thread.
        context, lock = contextvars.copy_context(), Lock()

        def run(work: Callable[[], T]) -> T:
            with lock:  # which is only taken if the request was cancelled during a part
                return context.run(work)

        def on_thread(work: Callable[[], T]) -> Awaitable[T]:
            return asyncio.get_running_loop().run_in_executor(self._threads, run, work)

        try:
            part = await on_thread(response.begin)
            await send(
                {
                    "type": "http.response.start",
                    "status": response.status,
                    "headers": response.headers,
                }
            )
            while True:
                # In slices, so that the protocol sees how fast the client reads a long page.
                for start in range(0, max(len(part), 1), LONGEST_PART):
                    end = start + LONGEST_PART
                    more = end < len(part) or not response.is_complete
                    piece = part[start:end]
                    await send({"type": "http.response.body", "body": piece, "more_body": more})
                if response.is_complete or is_gone():
                    return
                part = await on_thread(response.produce)
        finally:
            if not response.is_complete:
                await on_thread(response.close)


class _StreamedResponse:
    """A response that is being produced; only one thread at a time works on it."""

    def __init__(self, app: WSGIApp, environ: Environ) -> None:
        self._app, self._environ = app, environ
        self._pieces: list[bytes] = []
        self._source: Any = None  # what the application returned
        self._iterator: Iterator[bytes] = iter(())
        self.status = 0  # until the application calls `start_response`
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False

    def begin(self) -> bytes:
        """Call the application. Returns the first part of the body."""
        self._source = self._app(self._environ, self._start_response)
        self._iterator = iter(self._source)
        return self.produce()

    def produce(self) -> bytes:
        """Returns the next part of the body, and closes the response after the last one."""
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
        del exc_info  # nothing has been sent yet: the application may still change its mind
        self.status = int(status.split(" ", 1)[0])
        self.headers = [
            (name.strip().lower().encode("latin-1"), value.strip().encode("latin-1"))
            for name, value in headers
        ]
        return self._write

    def _write(self, piece: bytes) -> None:
        self._pieces.append(piece)
