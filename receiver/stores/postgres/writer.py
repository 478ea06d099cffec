"""Group commit: one writer for each process commits what waits in one transaction.

While one batch is on its way the next gathers: many callbacks share a begin, a commit, its sync of
the disk and every round trip. Nobody is answered before the commit that holds their item.

What goes wrong in a batch undoes all of it, and is nobody's answer: whoever waits then does their
piece alone, on a connection of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, cast

import psycopg

from receiver.errors import StoreUnavailable
from receiver.stores.postgres.batch import commit_together
from receiver.stores.postgres.wire import Lost, Wire
from receiver.stores.sql.session import Session

T = TypeVar("T")
Work = Callable[[Session], T]
PATIENCE = 8.0  # seconds a request waits for its commit: senders give up after 10 or more
MOST_AT_ONCE = 64  # items of a batch; each holds its rows until the batch is committed


class Undone(Exception):
    """The batch failed; this item may have nothing to do with it."""


class _Item(Generic[T]):
    """One piece of work that waits for its commit; `gate` opens when it is settled."""

    __slots__ = ("about", "error", "gate", "result", "work")

    def __init__(self, work: Work[T], about: str) -> None:
        self.work: Work[T] | None = work  # None: whoever wanted it has gone
        self.about = about
        self.result: T | None = None
        self.error: Exception | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class GroupCommit:
    """The writer of one process for one database; safe to use from many threads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._mutex = threading.Lock()
        self._arrived: SimpleQueue[_Item[Any] | None] = SimpleQueue()
        self._waiting: list[_Item[Any]] = []
        self._thread: threading.Thread | None = None
        self._closing = False
        self._is_last = False
        self._wire: Wire | None = None

    def run(self, work: Work[T], about: str) -> T:
        """Do `work`, which touches rows of this task alone; when this returns, it is committed.

        Raises Undone: nothing was done, do it alone. Raises StoreUnavailable: it may be done again,
        though what was begun may yet be committed.
        """
        item = _Item(work, about)
        with self._mutex:
            if self._closing:
                raise StoreUnavailable("the store is closing")
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="writer", daemon=True)
                self._thread.start()
            self._arrived.put(item)
        if not item.gate.acquire(timeout=PATIENCE):
            item.work = None
            raise StoreUnavailable(f"the database did not commit within {PATIENCE:g} s")
        if item.error is not None:
            raise item.error
        return cast("T", item.result)

    def close(self) -> None:
        """Commit what waits, then let go of the database."""
        with self._mutex:
            self._closing = True
            self._arrived.put(None)
        if self._thread is not None:
            self._thread.join(PATIENCE)

    def _loop(self) -> None:
        while self._gather():
            batch = self._next_batch()
            if batch:
                self._settle(batch)
        self._drop_wire()

    def _gather(self) -> bool:
        """Is there anything left to do? Waits for it."""
        if not self._waiting and not self._is_last:
            self._take(self._arrived.get())
        while True:
            try:
                self._take(self._arrived.get_nowait())
            except Empty:
                return bool(self._waiting)

    def _take(self, item: _Item[Any] | None) -> None:
        if item is None:
            self._is_last = True
        else:
            self._waiting.append(item)

    def _next_batch(self) -> list[_Item[Any]]:
        """The first of each task: what one callback moved, the next about the task has to see."""
        batch: dict[str, _Item[Any]] = {}
        later: list[_Item[Any]] = []
        for item in self._waiting:
            if item.work is None:
                continue
            if item.about in batch or len(batch) == MOST_AT_ONCE:
                later.append(item)
            else:
                batch[item.about] = item
        self._waiting = later
        return list(batch.values())

    def _settle(self, batch: list[_Item[Any]]) -> None:
        """Commit the batch, then open every gate."""
        failure: Exception | None = StoreUnavailable("the writer stopped")
        try:
            self._commit(batch)
            failure = None
        except (Lost, StoreUnavailable) as error:
            failure = StoreUnavailable(f"the database is unavailable: {error}")
        except Exception:  # noqa: BLE001 - whose it is shows when each is done alone
            failure = Undone()
        finally:
            if failure is not None:
                self._drop_wire()  # it may be in any state; the server rolls back
            for item in batch:
                item.error = failure
                item.gate.release()

    def _commit(self, batch: list[_Item[Any]]) -> None:
        was_open = self._wire is not None
        try:
            self._try(batch)
        except Lost:
            if not was_open:
                raise
            self._drop_wire()  # the server restarted while nobody looked; nothing was committed
            self._try(batch)

    def _try(self, batch: list[_Item[Any]]) -> None:
        if self._wire is None:
            try:
                self._wire = Wire(self._url)
            except psycopg.OperationalError as error:
                raise Lost(str(error)) from error
        works = [item.work for item in batch if item.work is not None]
        results = commit_together(self._wire, works)
        for item, result in zip(batch, results, strict=True):
            item.result = result

    def _drop_wire(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
