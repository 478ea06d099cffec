"""Handles the signals that stop a process, and SIGHUP, which reloads the hooks file."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue

from receiver.observability.logger import Logger

CANNOT_LISTEN = 5  # the exit status of a web process whose address cannot be used
log = Logger()


def stop_at(*numbers: int) -> threading.Event:
    """Return an event that these signals set.

    A handler interrupts the main thread, which may be holding the lock of the event. Setting the
    event in the handler could therefore deadlock. `SimpleQueue.put` is safe in a handler.
    """
    stop = threading.Event()
    _call_at(numbers, stop.set, "signals")
    return stop


def reload_at_hangup(reload: Callable[[], None], stop: threading.Event) -> None:
    """Call `reload` on its own thread at each SIGHUP.

    A process that runs in a terminal also receives SIGHUP when the terminal is closed; then `stop`
    is set instead.
    """
    has_terminal = runs_in_a_terminal()

    def run() -> None:
        if has_terminal and not runs_in_a_terminal():
            stop.set()
            return
        try:
            reload()
        except Exception:
            log.exception("a reload failed")

    _call_at((signal.SIGHUP,), run, "reload")
    accept_hangup()


def delay_hangup() -> None:
    """Block SIGHUP until `accept_hangup`, because without a handler it would end this process.

    A process may have to wait for its database for a long time when it starts.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def accept_hangup() -> None:
    """Receive SIGHUP from now on. `delay_hangup` or `receiver serve` has blocked it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def runs_in_a_terminal() -> bool:
    """Return whether closing the terminal sends this process SIGHUP; False under `nohup`."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _call_at(numbers: tuple[int, ...], run: Callable[[], None], name: str) -> None:
    """Call `run` on its own thread at each of these signals."""
    received: SimpleQueue[int] = SimpleQueue()

    def handle() -> None:
        while True:
            received.get()
            run()

    threading.Thread(target=handle, name=name, daemon=True).start()
    for number in numbers:
        signal.signal(number, lambda number, _: received.put(number))
