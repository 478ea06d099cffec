"""Group commit: one thread for each process commits what waits in one durable transaction.

A commit costs a sync of the disk, and PostgreSQL round trips. While one is under way the next batch
gathers, so that under load many requests share one. Nobody is answered before the commit that
holds their item is durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from receiver.errors import StoreUnavailable
from receiver.stores.gates import NEW_GATE, ThreadGate

T = TypeVar("T")
Connection = TypeVar("Connection")
PATIENCE = 8.0  # seconds a request waits for its commit: senders give up after 10 or more
PATIENCE_WHEN_STUCK = 1.0  # seconds; waiting requests must not take every thread of the web process
UNDISTURBED = 0.05  # seconds at most that the front stands still for the statements of a batch


class Item(Generic[Connection, T]):
    """One piece of work that waits for its commit; `gate` opens when it is settled."""

    __slots__ = ("about", "error", "gate", "result", "work")

    def __init__(self, work: Callable[[Connection], T], about: str) -> None:
        self.work: Callable[[Connection], T] | None = work  # None: whoever wanted it has gone
        self.about = about
        self.result: T | None = None
        self.error: Exception | None = None
        self.gate = NEW_GATE.get()()


class GroupCommit(Generic[Connection]):
    """The writer of one process for one database; safe to use from many threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._settling = threading.Lock()
        self._waiting: list[Item[Connection, Any]] = []
        self._work_is_there = threading.Lock()  # open once it is, and has not been looked at
        self._work_is_there.acquire()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._is_stuck = False
        self._is_told = False  # of what waits
        self._is_busy = False  # with a batch
        self._stands_still: ThreadGate | None = None  # who does, until the statements are done
        self._when_free: Callable[[], None] | None = None

    def run(self, work: Callable[[Connection], T], about: str = "") -> T:
        """Do `work` in a transaction; when this returns, it is durable.

        `about`: whose rows it touches, for a database where that matters. Raises what `work`
        raises, which undoes this piece of work alone. Raises StoreUnavailable if the batch could
        not be committed, or not in time. The work may be done again, after an undoing, so it does
        nothing outside its transaction; what was not begun when its caller went is never done, but
        what was begun may yet be committed.
        """
        item = Item(work, about)
        with self._mutex:
            if self._closing:
                raise StoreUnavailable("the store is closing")
            has_thread = self._has_thread()
            self._waiting.append(item)
        item.gate.begin(self)
        if not has_thread:
            self._settle_waiting()
        self._wait(item)
        if item.error is not None:
            raise item.error
        return cast("T", item.result)

    @property
    def waiting(self) -> int:
        """How many pieces of work wait for the next batch."""
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
        with self._mutex:
            self._tell()

    def start_undisturbed(self, when_free: Callable[[], None]) -> None:
        """See `gates.Writer`.

        Each statement lets go of Python's lock and wants it back: beside a thread that computes,
        that costs more than the statements.
        """
        with self._mutex:
            if not self._waiting:
                return
            if self._is_busy:
                self._when_free = when_free
                return
            self._stands_still = gate = ThreadGate()
            self._tell()
        gate.wait(UNDISTURBED)

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

    def _commit_all(self, batch: list[Item[Connection, Any]]) -> Exception | None:
        """Commit the batch, with each item's result or error in it; or what befell all of it."""
        raise NotImplementedError

    def _next_batch(self) -> list[Item[Connection, Any]]:
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
            gate.open()

    def _wait(self, item: Item[Connection, Any]) -> None:
        """Wait until the item is settled. Raises StoreUnavailable, and withdraws it, if that lasts.

        The disk or the server may hang, or another process in the middle of a write.
        """
        patience = PATIENCE_WHEN_STUCK if self._is_stuck else PATIENCE
        if not item.gate.wait(patience):
            with self._mutex:
                self._is_stuck = self._is_busy
                item.work = None
                if item in self._waiting:  # else a batch has it; nobody else holds on to it
                    self._waiting.remove(item)
            raise StoreUnavailable(f"no commit within {patience:g} s: {self._in_the_way}")

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

    def _settle(self, batch: list[Item[Connection, Any]]) -> None:
        with self._settling:  # the connection is for one thread at a time
            self._settle_alone(batch)

    def _settle_alone(self, batch: list[Item[Connection, Any]]) -> None:
        """Commit the batch, then open every gate: with its result, its own error, or a 503."""
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
            for item in batch:
                item.error = failure or item.error
                item.gate.open()
            if when_free is not None:
                when_free()
