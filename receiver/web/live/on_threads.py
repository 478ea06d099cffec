"""Serves listeners and waiting requests on threads, for gthread."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog

from receiver.errors import StoreError
from receiver.web.live.listener import Listener, TaskWait

LOOK_EVERY = 0.2  # seconds between two checks of the connection and of the process
HAS_LEFT = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)  # the last on Linux
log = structlog.get_logger()


def while_needed(environ: Mapping[str, Any], is_serving: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that checks whether the client of a request is still connected.

    It also returns False when the process is stopping.
    """
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if connection is None:  # another server
        return is_serving
    poll = select.poll()
    poll.register(connection.fileno(), HAS_LEFT)
    return lambda: is_serving() and not poll.poll(0)


def stream_on_thread(listener: Listener, is_needed: Callable[[], bool]) -> Iterator[bytes]:
    """Yield the body of a response until the client disconnects or the process stops."""
    signal = threading.Event()
    listener.attach(signal.set, signal.set)
    try:
        yield from listener.pages()
        silent_since = time.monotonic()
        while not listener.is_ended and is_needed():
            signal.clear()
            text = listener.take()
            if not text and time.monotonic() - silent_since >= listener.silence:
                text = listener.heartbeat()
                listener.sent(-len(text))
            if text:
                yield text
                listener.sent(len(text))
                silent_since = time.monotonic()
            else:
                signal.wait(min(LOOK_EVERY, listener.silence))
    except StoreError as error:
        log.error("a stream of events ends", error=str(error))
    finally:
        listener.close()


def wait_on_thread(wait: TaskWait, is_needed: Callable[[], bool]) -> None:
    """Wait until the task ends, the time is over, the client disconnects, or the process stops.

    Raises StoreUnavailable.
    """
    signal = threading.Event()
    wait.attach(signal.set, signal.set)
    ends_at = time.monotonic() + wait.seconds
    try:
        wait.begin()
        while not wait.is_ended and is_needed() and (left := ends_at - time.monotonic()) > 0:
            signal.wait(min(LOOK_EVERY, left))
            signal.clear()
    finally:
        wait.close()
