"""What a request waits at until its commit is durable; the front may bring a kind of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from threading import Lock
from typing import Protocol


class Writer(Protocol):
    """Commits what gathers, on a thread of its own."""

    def start(self) -> None:
        """Have it commit what waits as soon as it can."""
        ...

    def start_undisturbed(self, when_free: Callable[[], None]) -> None:
        """As `start`, and return once its statements are done, or would take too long.

        While it is at work already, do neither: it calls `when_free`, on its thread, afterwards.
        """
        ...


class Gate(Protocol):
    """Shut when it is made."""

    def begin(self, writer: Writer) -> None:
        """Have that writer started: at once, or once more has gathered."""
        ...

    def wait(self, seconds: float) -> bool:
        """Did it open within so many seconds?"""
        ...

    def open(self) -> None:
        """Let go on who waits; called from any thread, at most once."""
        ...


class ThreadGate:
    """The thread waits: one lock for each request."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def begin(self, writer: Writer) -> None:
        writer.start()

    def wait(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=seconds)

    def open(self) -> None:
        self._lock.release()


NEW_GATE: ContextVar[Callable[[], Gate]] = ContextVar("NEW_GATE", default=ThreadGate)
"""Makes the gate at which the caller waits; raises StoreUnavailable if it shall not wait again."""


def may_block() -> bool:
    """Has the caller a thread of its own, which may wait for other things than a gate?"""
    return NEW_GATE.get() is ThreadGate
