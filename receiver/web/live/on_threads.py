"""Serves listeners and waiting requests on threads, for gthread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import structlog

from receiver.errors import StoreError
from receiver.web.live.listener import Listener, TaskWait

LOOK_EVERY = 0.5  # seconds between two checks for the end of the process
log = structlog.get_logger()


def stream_on_thread(listener: Listener, is_serving: Callable[[], bool]) -> Iterator[bytes]:
    """Yield the body of a response until the client leaves or the process ends."""
    signal = threading.Event()
    listener.attach(signal.set, signal.set)
    try:
        yield from listener.pages()
        silent_since = time.monotonic()
        while not listener.is_ended and is_serving():
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


def wait_on_thread(wait: TaskWait, is_serving: Callable[[], bool]) -> None:
    """Wait until the task ends, the time is over, or the process ends. Raises StoreUnavailable."""
    signal = threading.Event()
    wait.attach(signal.set, signal.set)
    ends_at = time.monotonic() + wait.seconds
    try:
        wait.begin()
        while not wait.is_ended and is_serving() and (left := ends_at - time.monotonic()) > 0:
            signal.wait(min(LOOK_EVERY, left))
            signal.clear()
    finally:
        wait.close()
