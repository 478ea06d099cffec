"""Awaits commits in an event loop. All writes of one loop iteration are committed together."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from receiver.stores.group_commit import GroupCommit, Write

if TYPE_CHECKING:  # the gthread worker does not use asyncio, and importing it takes 24 ms
    import asyncio

T = TypeVar("T")
# Loop iterations before the next batch starts. Meanwhile the responses to the last batch are sent,
# and the callbacks that clients send after those responses join the next batch.
TURNS = 5
CHECK_INTERVAL = 0.25  # seconds between two checks for writes that have timed out


class _Waiter(NamedTuple):
    write: Write[Any, Any]
    future: asyncio.Future[None]
    until: float  # the deadline, on the loop's clock


class CommitNotifier:
    """Connects the writer thread of a process to its event loop."""

    def __init__(self, writer: GroupCommit[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._writer, self._loop = writer, loop
        self._context = Context()  # not that of the request that happens to start a batch
        self._waiting: dict[Future[Any], _Waiter] = {}
        self._settled: deque[Future[Any]] = deque()
        self._is_resume_scheduled = False  # `_resume_callers` will run
        self._is_start_scheduled = False  # `_start` will run at the end of this loop iteration
        self._timer: asyncio.TimerHandle | None = None

    async def of(self, write: Write[Any, T]) -> T:
        """Wait until the write is durable, and return its result.

        Raises the write's own exception, or StoreUnavailable if the commit fails or times out. If
        the caller is cancelled, the write is still made, unless it times out first.
        """
        waiter = self._loop.create_future()
        self._waiting[write] = _Waiter(write, waiter, self._loop.time() + write.patience)
        write.add_done_callback(self._on_settled)
        self._start_soon()
        if self._timer is None:
            self._timer = self._loop.call_later(
                CHECK_INTERVAL, self._give_up_on_late, context=self._context
            )
        try:
            await waiter
            return write.result()
        finally:
            del waiter, write  # the traceback of an exception keeps this frame alive

    def _start_soon(self) -> None:
        if not self._is_start_scheduled:
            self._is_start_scheduled = True
            self._loop.call_soon(self._start, context=self._context)

    def _start(self) -> None:
        self._is_start_scheduled = False
        self._writer.start_and_wait(self._on_writer_free)

    def _on_writer_free(self) -> None:
        """Called on the writer's thread, after a batch during which more writes were submitted."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._start_after, TURNS)

    def _start_after(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._start_after, turns - 1)
        else:
            self._start()

    def _on_settled(self, write: Future[Any]) -> None:
        """Called on the writer's thread. The first write of a batch wakes the loop for all."""
        self._settled.append(write)
        if not self._is_resume_scheduled:
            self._is_resume_scheduled = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._resume_callers)

    def _resume_callers(self) -> None:
        # First, so that a write that settles later wakes the loop again.
        self._is_resume_scheduled = False
        while self._settled:
            waiter = self._waiting.pop(self._settled.popleft(), None)
            if waiter is not None and not waiter.future.done():
                waiter.future.set_result(None)

    def _give_up_on_late(self) -> None:
        now = self._loop.time()
        for write, future, until in list(self._waiting.values()):
            if until <= now and not write.done():  # a write that is done is not late: the loop is
                del self._waiting[write]
                error = self._writer.give_up(write)
                if not future.done():
                    future.set_exception(error)
        self._timer = None
        if self._waiting:
            self._timer = self._loop.call_later(CHECK_INTERVAL, self._give_up_on_late)
