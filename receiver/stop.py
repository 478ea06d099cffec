"""Asking a process to stop: a signal sets an event, whatever the process is doing just then."""

from __future__ import annotations

import signal
import threading
from queue import SimpleQueue


def stop_at(*numbers: int) -> threading.Event:
    """An event that these signals set.

    A handler runs between two steps of the main thread, which may just then hold the event's lock:
    to set the event there would be to wait for oneself. `SimpleQueue.put` may be called there.
    """
    stop = threading.Event()
    came: SimpleQueue[int] = SimpleQueue()

    def pass_on() -> None:
        came.get()
        stop.set()

    threading.Thread(target=pass_on, name="signals", daemon=True).start()
    for number in numbers:
        signal.signal(number, lambda number, _: came.put(number))
    return stop
