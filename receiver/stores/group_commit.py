"""Group commit: one thread per process commits all waiting writes in one durable transaction.

A commit costs a sync of the disk, or round trips to PostgreSQL. During a commit, new writes are
collected for the next batch, so that under load many requests share one commit. A request is
answered only after the commit that contains its write is durable.
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
PATIENCE = 8.0  # seconds a request waits for its commit; providers time out after 10 or more
PATIENCE_WHEN_STUCK = 1.0  # seconds; waiting requests must not block all threads of the web process
STATEMENTS_TIMEOUT = 0.05  # seconds for which the statements of a batch may block an event loop


class Write(Future[T], Generic[Connection, T]):
    """A future for a piece of work in the database, done when the work is durable or has failed.

    `about` is the id of the task whose rows the work changes. `patience` is the number of seconds
    that a caller should wait for it.
    """

    def __init__(self, work: Callable[[Connection], T], about: str, patience: float) -> None:
        super().__init__()
        self.work: Callable[[Connection], T] | None = work  # None after `cancel` or `settle`
        self.about = about
        self.patience = patience
        self.returned: T | None = None  # the work's result; the commit may still fail
        self.raised: Exception | None = None  # the work's exception; only this work is rolled back

    def cancel(self) -> bool:
        """Cancel the work if it has not begun, and release it. Returns whether it was cancelled."""
        is_cancelled = super().cancel()
        if is_cancelled:
            self.work = None
        return is_cancelled

    def begin(self) -> bool:
        """Return False if the work was cancelled; otherwise, it can no longer be cancelled."""
        if self.cancelled():
            return False
        return self.running() or self.set_running_or_notify_cancel()

    def do(self, connection: Connection) -> None:
        """Execute the work, unless it was cancelled."""
        if self.begin() and self.work is not None:
            self.returned = self.work(connection)

    def settle(self, failure: Exception | None) -> None:
        """Set the result after the commit. `failure` is the error of the whole batch, if any."""
        if not self.begin():
            return
        self.work = None
        error = failure or self.raised
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(cast("T", self.returned))


class GroupCommit(Generic[Connection]):
    """The writer of one process for one database. Thread-safe.

    Subclasses commit the batches.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._settling = threading.Lock()
        self._waiting: list[Write[Connection, Any]] = []
        self._work_available = threading.Lock()  # released when there is work for the thread
        self._work_available.acquire()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._is_stuck = False
        self._is_woken = False  # the thread will check for waiting writes
        self._is_busy = False  # committing a batch
        self._statements_done: threading.Lock | None = None  # for `start_and_wait`
        self._when_free: Callable[[], None] | None = None

    def submit(
        self, work: Callable[[Connection], T], about: str = "", *, start: bool = True
    ) -> Write[Connection, T]:
        """Queue work for the next transaction. The future's result is the return value of the work.

        `about` is the id of the task whose rows the work changes; PostgreSQL needs it. With
        `start=False`, the caller has to call `start` or `start_and_wait` after submitting a group.

        If the work raises an exception, only this work is rolled back, and the future raises that
        exception. If the batch cannot be committed, the future raises StoreUnavailable. The work
        may run again after a rollback, so it must have no effects outside its transaction. Raises
        StoreUnavailable after `close`.
        """
        write = Write(work, about, PATIENCE_WHEN_STUCK if self._is_stuck else PATIENCE)
        with self._mutex:
            if self._closing:
                raise StoreUnavailable("the store is closing")
            self._waiting.append(write)
            has_thread = self._wake(start=start)
        if not has_thread:
            self._commit_on_this_thread()
        return write

    def run(self, work: Callable[[Connection], T], about: str = "") -> T:
        """Submit the work and wait for its result.

        Raises the future's exception, or StoreUnavailable if the commit times out.
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
            del write, error  # the error's traceback keeps this frame alive

    def give_up(self, write: Write[Connection, Any]) -> StoreUnavailable:
        """Cancel a write that timed out. Returns the error for its caller.

        The disk, the database server or another process that is writing may have stalled. Work that
        has begun may still be committed; work that has not begun is never executed.
        """
        write.cancel()  # without the mutex, because it runs the done callbacks
        with self._mutex:
            self._is_stuck = self._is_busy
            if write in self._waiting:
                self._waiting.remove(write)
        return StoreUnavailable(f"no commit within {write.patience:g} s: {self._likely_cause}")

    @property
    def waiting(self) -> int:
        """The number of writes that wait for the next batch."""
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether the thread is processing a batch."""
        return self._is_busy

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called: no more work is accepted."""
        return self._closing

    def start(self) -> None:
        """Commit the waiting writes as soon as possible."""
        with self._mutex:
            has_thread = self._wake()
        if not has_thread:
            self._commit_on_this_thread()

    def start_and_wait(self, when_free: Callable[[], None]) -> None:
        """Like `start`, but block until the batch's statements have run, or STATEMENTS_TIMEOUT.

        For event loops. Each statement releases the GIL and reacquires it. If another thread is
        computing, waiting for the GIL takes longer than the statements. If the writer is already
        busy, this method returns immediately, and the writer's thread calls `when_free` later.
        """
        with self._mutex:
            if not self._waiting:
                return
            if self._is_busy:
                self._when_free = when_free
                return
            self._statements_done = statements_done = threading.Lock()
            statements_done.acquire()
            has_thread = self._wake()
        if not has_thread:
            self._commit_on_this_thread()
        statements_done.acquire(timeout=STATEMENTS_TIMEOUT)

    def close(self) -> None:
        """Commit the waiting writes, then close the connection to the database."""
        with self._mutex:
            was_closing, self._closing = self._closing, True
            if self._thread is not None and not was_closing:
                self._wake()
            thread = self._thread
        if thread is not None:
            thread.join(PATIENCE)
        else:
            self._disconnect()  # callers may have committed on their own threads

    # -- implemented for each database

    def _commit_all(self, batch: list[Write[Connection, Any]]) -> Exception | None:
        """Commit the batch, and set the result or error of each write.

        Returns an exception if the whole batch failed.
        """
        raise NotImplementedError

    def _next_batch(self) -> list[Write[Connection, Any]]:
        """Remove the next batch from the waiting writes. Called with the mutex held."""
        batch, self._waiting = self._waiting, []
        return batch

    def _disconnect(self) -> None:
        """Close the connection to the database, if it is open."""
        raise NotImplementedError

    @property
    def _likely_cause(self) -> str:
        """The likely causes of a commit that takes too long, for the error message."""
        raise NotImplementedError

    # -- common to all databases

    def _wake(self, *, start: bool = True) -> bool:
        """Make the writer's thread commit the waiting writes, or only wait, without `start`.

        Creates the thread if needed. Returns False if that fails. Called with the mutex held.
        """
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run_thread, name="writer", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads, or the process is exiting (Python 3.12.1)
                return False
            self._thread = thread
        if start and not self._is_woken:
            self._is_woken = True
            self._work_available.release()
        return True

    def _statements_are_done(self) -> None:
        """Release the caller of `start_and_wait`: only waiting for the commit is left."""
        statements_done, self._statements_done = self._statements_done, None
        if statements_done is not None:
            statements_done.release()

    def _run_thread(self) -> None:
        is_over = False
        while not is_over:
            self._work_available.acquire()
            with self._mutex:
                self._is_woken, self._is_busy = False, True
                batch = self._next_batch()
                is_over = self._closing and not self._waiting
                if self._waiting:  # some writes were left for the next batch
                    self._wake()
            self._settle(batch)
            del batch  # release it before waiting for the next one
        self._disconnect()

    def _commit_on_this_thread(self) -> None:
        """Commit the waiting writes on the caller's thread."""
        while True:
            with self._mutex:
                batch = self._next_batch()
            if not batch:
                return
            self._settle(batch)

    def _settle(self, batch: list[Write[Connection, Any]]) -> None:
        with self._settling:  # only one thread at a time may use the connection
            self._settle_locked(batch)

    def _settle_locked(self, batch: list[Write[Connection, Any]]) -> None:
        """Commit the batch, then settle each write with its result, its error or the batch's."""
        stopped = StoreUnavailable("the writer stopped")
        failure: Exception | None = stopped
        try:
            failure = self._commit_all(batch) if batch else None
        finally:
            self._statements_are_done()
            with self._mutex:
                self._is_stuck = self._is_busy = False
                if failure is stopped:  # this thread is ending, although `is_alive` is still true
                    self._thread = None
                when_free, self._when_free = self._when_free, None
            for write in batch:
                # Each write gets a copy: a traceback keeps the frames of its raising thread alive.
                write.settle(copy(failure))
            if when_free is not None:
                when_free()
