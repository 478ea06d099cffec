"""Awaits commits in an event loop: what arrives in one turn of the loop is committed together."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from receiver.stores.group_commit import GroupCommit, Write

if TYPE_CHECKING:  # gthread needs none of it, and it takes 24 ms to import
    import asyncio

T = TypeVar("T")
TURNS = 5  # of the loop: answers of one batch leave, and what they bring joins the next
LOOK_EVERY = 0.25  # seconds between looks for writes that were waited for too long


class _Waiter(NamedTuple):
    write: Write[Any, Any]
    future: asyncio.Future[None]
    until: float  # by the loop's clock


class Commits:
    """The writer of one process, for its event loop."""

    def __init__(self, writer: GroupCommit[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._writer, self._loop = writer, loop
        self._waiting: dict[Future[Any], _Waiter] = {}
        self._settled: deque[Future[Any]] = deque()
        self._is_woken = False  # it will look at what is settled
        self._is_starting = False  # the writer, once this turn of the loop is over
        self._look: asyncio.TimerHandle | None = None

    async def of(self, write: Write[Any, T]) -> T:
        """Wait until it is durable. Raises the write's exception, and StoreUnavailable.

        If the caller is cancelled, the write is still made, or given up when its time is over.
        """
        waiter = self._loop.create_future()
        self._waiting[write] = _Waiter(write, waiter, self._loop.time() + write.patience)
        write.add_done_callback(self._note)
        self._start_soon()
        if self._look is None:
            self._look = self._loop.call_later(LOOK_EVERY, self._give_up_on_late)
        try:
            await waiter
            return write.result()
        finally:
            del waiter, write  # the traceback of what is raised holds this frame

    def _start_soon(self) -> None:
        if not self._is_starting:
            self._is_starting = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._is_starting = False
        self._writer.start_undisturbed(self._when_free)

    def _when_free(self) -> None:
        """Called on the writer's thread, which has settled a batch while the next one gathered."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._start_after, TURNS)

    def _start_after(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._start_after, turns - 1)
        else:
            self._start()

    def _note(self, write: Future[Any]) -> None:
        """Called on the writer's thread: the first of a batch wakes the loop for all of them."""
        self._settled.append(write)
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        self._is_woken = False  # before it looks: what is settled later wakes it again
        while self._settled:
            waiting = self._waiting.pop(self._settled.popleft(), None)
            if waiting is not None and not waiting.future.done():
                waiting.future.set_result(None)

    def _give_up_on_late(self) -> None:
        now = self._loop.time()
        for write, future, until in list(self._waiting.values()):
            if until <= now and not write.done():  # else the loop was late itself
                del self._waiting[write]
                error = self._writer.give_up(write)
                if not future.done():
                    future.set_exception(error)
        self._look = None
        if self._waiting:
            self._look = self._loop.call_later(LOOK_EVERY, self._give_up_on_late)
