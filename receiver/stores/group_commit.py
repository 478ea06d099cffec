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
from receiver.stores.gates import NEW_GATE

T = TypeVar("T")
Connection = TypeVar("Connection")
PATIENCE = 8.0  # seconds a request waits for its commit: senders give up after 10 or more
PATIENCE_WHEN_STUCK = 1.0  # seconds; waiting requests must not take every thread of the web process


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
        self._waiting: list[Item[Connection, Any]] = []
        self._work_is_there = threading.Lock()  # open once it is, and has not been looked at
        self._work_is_there.acquire()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._is_stuck = False

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
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="writer", daemon=True)
                self._thread.start()
            self._waiting.append(item)
            if len(self._waiting) == 1:
                self._work_is_there.release()
        self._wait(item)
        if item.error is not None:
            raise item.error
        return cast("T", item.result)

    def close(self) -> None:
        """Commit what waits, then let go of the database."""
        with self._mutex:
            thread, was_closing = self._thread, self._closing
            self._closing = True
            if thread is not None and not self._waiting and not was_closing:
                self._work_is_there.release()
        if thread is not None:
            thread.join(PATIENCE)

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

    def _wait(self, item: Item[Connection, Any]) -> None:
        """Wait until the item is settled. Raises StoreUnavailable, and withdraws it, if that lasts.

        The disk or the server may hang, or another process in the middle of a write.
        """
        patience = PATIENCE_WHEN_STUCK if self._is_stuck else PATIENCE
        if not item.gate.wait(patience):
            self._is_stuck = True
            item.work = None
            raise StoreUnavailable(f"no commit within {patience:g} s: {self._in_the_way}")

    def _loop(self) -> None:
        is_over = False
        while not is_over:
            self._work_is_there.acquire()
            with self._mutex:
                batch = self._next_batch()
                is_over = self._closing and not self._waiting
                if self._waiting:  # what was left for the next batch
                    self._work_is_there.release()
            if batch:
                self._settle(batch)
        self._let_go()

    def _settle(self, batch: list[Item[Connection, Any]]) -> None:
        """Commit the batch, then open every gate: with its result, its own error, or a 503."""
        failure: Exception | None = StoreUnavailable("the writer stopped")
        try:
            failure = self._commit_all(batch)
        finally:
            self._is_stuck = False
            for item in batch:
                item.error = failure or item.error
                item.gate.open()
