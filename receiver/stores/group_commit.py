"""Group commit: one thread for each process commits what waits in one durable transaction.

A commit costs a sync of the disk, and PostgreSQL round trips. While one is under way the next batch
gathers, so that under load many requests share one. Nobody is answered before the commit that
holds their write is durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy
from typing import Any, Generic, TypeVar, cast

from receiver.errors import StoreUnavailable

T = TypeVar("T")
Connection = TypeVar("Connection")
PATIENCE = 8.0  # seconds a request waits for its commit: senders give up after 10 or more
PATIENCE_WHEN_STUCK = 1.0  # seconds; waiting requests must not take every thread of the web process
UNDISTURBED = 0.05  # seconds at most that an event loop stands still for the statements of a batch


class Write(Future[T], Generic[Connection, T]):
    """A piece of work for the writer; done once it is durable, or has failed.

    `about`: whose rows it touches. `patience`: the seconds that somebody should wait for it.
    """

    def __init__(self, work: Callable[[Connection], T], about: str, patience: float) -> None:
        super().__init__()
        self.work: Callable[[Connection], T] | None = work  # None: whoever wanted it has gone
        self.about = about
        self.patience = patience
        self.returned: T | None = None  # by the work, in a transaction that may yet fail
        self.raised: Exception | None = None  # by the work alone, which is undone

    def cancel(self) -> bool:
        """Whether it is never done; its work is released then, although a batch may hold it."""
        is_cancelled = super().cancel()
        if is_cancelled:
            self.work = None
        return is_cancelled

    def begin(self) -> bool:
        """Whether it is to be done; if so, it cannot be cancelled any more."""
        if self.cancelled():
            return False
        return self.running() or self.set_running_or_notify_cancel()

    def do(self, connection: Connection) -> None:
        """Do the work, unless it was cancelled."""
        if self.begin() and self.work is not None:
            self.returned = self.work(connection)

    def settle(self, failure: Exception | None) -> None:
        """Its transaction was committed, or failed as a whole."""
        if not self.begin():
            return
        self.work = None
        error = failure or self.raised
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(cast("T", self.returned))


class GroupCommit(Generic[Connection]):
    """The writer of one process for one database; safe to use from many threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._settling = threading.Lock()
        self._waiting: list[Write[Connection, Any]] = []
        self._work_is_there = threading.Lock()  # open once it is, and has not been looked at
        self._work_is_there.acquire()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._is_stuck = False
        self._is_told = False  # of what waits
        self._is_busy = False  # with a batch
        self._stands_still: threading.Lock | None = None  # who does; open once they are done
        self._when_free: Callable[[], None] | None = None

    def submit(
        self, work: Callable[[Connection], T], about: str = "", *, start: bool = True
    ) -> Write[Connection, T]:
        """Hand over work to be done in a transaction; what it returns is then durable.

        `about`: whose rows it touches, for a database where that matters. `start=False`: the caller
        calls `start` or `start_undisturbed` once all that came together has gathered.

        What the work raises undoes this piece of work alone, and is the future's exception. It is
        StoreUnavailable if the batch could not be committed. The work may be done again, after an
        undoing, so it does nothing outside its transaction. Raises StoreUnavailable after `close`.
        """
        write = Write(work, about, PATIENCE_WHEN_STUCK if self._is_stuck else PATIENCE)
        with self._mutex:
            if self._closing:
                raise StoreUnavailable("the store is closing")
            has_thread = self._has_thread()
            self._waiting.append(write)
            if start:
                self._tell()
        if not has_thread:
            self._settle_waiting()
        return write

    def run(self, work: Callable[[Connection], T], about: str = "") -> T:
        """`submit`, and wait for the result. Raises what the future would.

        Raises StoreUnavailable as well if the commit does not come in time.
        """
        write = self.submit(work, about)
        try:
            error = write.exception(write.patience)
        except TimeoutError:
            raise self.give_up(write) from None
        try:
            if error is not None:
                raise error
            return write.result()
        finally:
            del write, error  # the error's traceback holds this frame

    def give_up(self, write: Write[Connection, Any]) -> StoreUnavailable:
        """Withdraw what was waited for in vain; what to tell who waited.

        The disk or the server may hang, or another process in the middle of a write. What has begun
        may yet be committed; what has not is never done.
        """
        write.cancel()  # without the mutex: it calls whoever wants to know
        with self._mutex:
            self._is_stuck = self._is_busy
            if write in self._waiting:
                self._waiting.remove(write)
        return StoreUnavailable(f"no commit within {write.patience:g} s: {self._in_the_way}")

    @property
    def waiting(self) -> int:
        """How many writes wait for the next batch."""
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether the thread is at work on a batch."""
        return self._is_busy

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called: no more work is accepted."""
        return self._closing

    def start(self) -> None:
        """Commit what waits as soon as possible."""
        with self._mutex:
            self._tell()

    def start_undisturbed(self, when_free: Callable[[], None]) -> None:
        """As `start`, for an event loop; returns once the statements are done, or take too long.

        Each statement lets go of Python's lock and wants it back: beside a thread that computes,
        that costs more than the statements. While the writer is at work already, this does neither:
        `when_free` is called, on the writer's thread, afterwards.
        """
        with self._mutex:
            if not self._waiting:
                return
            self._has_thread()  # the last may have stopped meanwhile
            if self._is_busy:
                self._when_free = when_free
                return
            self._stands_still = gate = threading.Lock()
            gate.acquire()
            self._tell()
        gate.acquire(timeout=UNDISTURBED)

    def close(self) -> None:
        """Commit what waits, then let go of the database."""
        with self._mutex:
            thread, was_closing = self._thread, self._closing
            self._closing = True
            if not was_closing:
                self._tell()
        if thread is not None:
            thread.join(PATIENCE)
        else:
            self._let_go()  # callers may have committed themselves

    # -- each database has its own way

    def _commit_all(self, batch: list[Write[Connection, Any]]) -> Exception | None:
        """Commit the batch: each write with what it returned or raised; else what befell all."""
        raise NotImplementedError

    def _next_batch(self) -> list[Write[Connection, Any]]:
        """Take of those that wait; called with the mutex held."""
        batch, self._waiting = self._waiting, []
        return batch

    def _let_go(self) -> None:
        """Close what is open."""
        raise NotImplementedError

    @property
    def _in_the_way(self) -> str:
        """What may be in the way of a commit that takes too long."""
        raise NotImplementedError

    # -- and the rest is the same

    def _tell(self) -> None:
        """Have the thread look; called with the mutex held."""
        if not self._is_told:
            self._is_told = True
            self._work_is_there.release()

    def _needs_no_python(self) -> None:
        """The rest of the batch is waiting: who stood still for it goes on."""
        gate, self._stands_still = self._stands_still, None
        if gate is not None:
            gate.release()

    def _loop(self) -> None:
        is_over = False
        while not is_over:
            self._work_is_there.acquire()
            with self._mutex:
                self._is_told, self._is_busy = False, True
                batch = self._next_batch()
                is_over = self._closing and not self._waiting
                if self._waiting:  # what was left for the next batch
                    self._tell()
            self._settle(batch)
            del batch  # the next may be long in coming
        self._let_go()

    def _has_thread(self) -> bool:
        """Is the writer's thread running, or can it be started? Called with the mutex held."""
        if self._thread is not None and self._thread.is_alive():
            return True
        thread = threading.Thread(target=self._loop, name="writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # too many threads; Python 3.12.1 starts none while a process exits
            return False
        self._thread = thread
        return True

    def _settle_waiting(self) -> None:
        """Commit on the caller's thread what the writer's thread would commit."""
        while True:
            with self._mutex:
                batch = self._next_batch()
            if not batch:
                return
            self._settle(batch)

    def _settle(self, batch: list[Write[Connection, Any]]) -> None:
        with self._settling:  # the connection is for one thread at a time
            self._settle_alone(batch)

    def _settle_alone(self, batch: list[Write[Connection, Any]]) -> None:
        """Commit the batch, then settle each write: with its result, its own error, or a 503."""
        stopped = StoreUnavailable("the writer stopped")
        failure: Exception | None = stopped
        try:
            failure = self._commit_all(batch) if batch else None
        finally:
            self._needs_no_python()
            with self._mutex:
                self._is_stuck = self._is_busy = False
                if failure is stopped:  # this thread is about to end, although it is alive still
                    self._thread = None
                when_free, self._when_free = self._when_free, None
            for write in batch:
                # Each its own: a traceback holds all that is on the stack of whoever raises it.
                write.settle(copy(failure))
            if when_free is not None:
                when_free()
