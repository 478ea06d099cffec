"""Signals: some ask a process to stop, SIGHUP to read the hooks file again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue

import structlog

CANNOT_LISTEN = 5  # the exit status of a web process whose address cannot be used
log = structlog.get_logger()


def stop_at(*numbers: int) -> threading.Event:
    """An event that these signals set.

    A handler runs between two steps of the main thread, which may just then hold the event's lock:
    to set the event there would be to wait for oneself. `SimpleQueue.put` may be called there.
    """
    stop = threading.Event()
    _call_at(numbers, stop.set, "signals")
    return stop


def reload_at_hangup(reload: Callable[[], None], stop: threading.Event) -> None:
    """Call `reload` on a thread of its own at each SIGHUP.

    SIGHUP also means that the terminal was closed in which the process runs: then set `stop`.
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
    """Let SIGHUP wait until `accept_hangup`: without a handler, it would end this process.

    A process that starts may have to wait long for its database.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def accept_hangup() -> None:
    """Receive SIGHUP from now on; see `delay_hangup`. `receiver serve` blocks it as well."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def runs_in_a_terminal() -> bool:
    """Return whether closing a terminal sends this process SIGHUP; not if `nohup` started it."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _call_at(numbers: tuple[int, ...], run: Callable[[], None], name: str) -> None:
    came: SimpleQueue[int] = SimpleQueue()

    def pass_on() -> None:
        while True:
            came.get()
            run()

    threading.Thread(target=pass_on, name=name, daemon=True).start()
    for number in numbers:
        signal.signal(number, lambda number, _: came.put(number))
