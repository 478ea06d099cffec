"""Serves listeners and waiting requests in the event loop, without a thread for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import structlog

from receiver.errors import StoreError
from receiver.web.live.listener import Listener, Subscriber, TaskWait

T = TypeVar("T")
log = structlog.get_logger()


class OnThread(Protocol):
    """Runs a function on a thread."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class StreamConnection(Protocol):
    """The part of a connection that streams use; see `server.protocol.HttpConnection`."""

    is_gone: bool

    def begin_stream(self, end: Callable[[], object]) -> None: ...

    def finish_stream(self) -> None: ...

    async def wait_until_read(self) -> None: ...

    def abort(self) -> None: ...


def attach_to_loop(subscriber: Subscriber) -> asyncio.Event:
    """Return an event that is set when there is something to send, or when the subscriber ends."""
    loop, signal = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(signal.set)

    subscriber.attach(signal.set, wake)
    return signal


async def wait_in_loop(wait: TaskWait, connection: StreamConnection, on_thread: OnThread) -> None:
    """Wait until the task ends, the time is over, the client disconnects, or the server stops."""
    signal = attach_to_loop(wait)
    connection.begin_stream(wait.end)
    try:
        await on_thread(wait.begin)
        async with asyncio.timeout(wait.seconds):
            while not wait.is_ended:
                await signal.wait()
                signal.clear()
    except (TimeoutError, StoreError):
        pass  # the view reads the task again, and reports any error
    finally:
        connection.finish_stream()
        wait.close()


async def stream_in_loop(
    listener: Listener,
    connection: StreamConnection,
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    on_thread: OnThread,
) -> None:
    """Send the body of a response until the client disconnects or the server stops."""
    signal = attach_to_loop(listener)

    def notice() -> None:
        signal.set()
        if listener.is_behind:
            connection.abort()  # a write may be waiting for the client

    listener.notice_in_loop = notice
    connection.begin_stream(listener.end)

    async def write(text: bytes) -> None:
        await send({"type": "http.response.body", "body": text, "more_body": True})
        await connection.wait_until_read()

    try:
        pages = listener.pages()
        while (page := await on_thread(lambda: next(pages, None))) is not None:
            await write(page)
        while not listener.is_ended:
            signal.clear()
            text = listener.take()
            if text:
                await write(text)
                listener.sent(len(text))
                continue
            try:
                async with asyncio.timeout(listener.silence):
                    await signal.wait()
            except TimeoutError:
                await write(listener.heartbeat())
    except StoreError as error:
        log.error("a stream of events ends", error=str(error))
    finally:
        listener.close()
    if listener.is_behind:
        log.info("a listener read too slowly and was disconnected")
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    connection.finish_stream()
