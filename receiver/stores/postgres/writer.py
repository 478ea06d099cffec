"""Group commit: one writer for each process commits what waits in one transaction.

While one batch is under way the next gathers: many callbacks share a begin, a commit with its sync
of the disk, and each round trip. Nobody is answered before the commit that holds their item.

What goes wrong in a batch undoes all of it and answers nobody: those who wait do their piece again,
alone, on connections of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, cast

from receiver.errors import StoreUnavailable
from receiver.stores.postgres.batch import commit_together
from receiver.stores.postgres.wire import Lost, Wire
from receiver.stores.sql.session import Session

T = TypeVar("T")
Work = Callable[[Session], T]
PATIENCE = 8.0  # seconds a request waits for its commit: senders give up after 10 or more
PATIENCE_WHEN_STUCK = 1.0  # seconds; waiting requests must not take every thread of the web process
MOST_AT_ONCE = 64  # items; each holds its rows until the batch is committed


class Undone(Exception):
    """The batch failed; whose fault it was is not known."""


class _Item(Generic[T]):
    """One piece of work that waits for its commit; `gate` opens when it is settled."""

    __slots__ = ("error", "gate", "result", "task_id", "work")

    def __init__(self, task_id: str, work: Work[T]) -> None:
        self.task_id = task_id
        self.work: Work[T] | None = work  # None: whoever wanted it has gone
        self.result: T | None = None
        self.error: Exception | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class GroupCommit:
    """The writer of one process for one database; safe to use from many threads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._mutex = threading.Lock()
        self._arrived: SimpleQueue[_Item[Any] | None] = SimpleQueue()  # None: no more will come
        self._waiting: list[_Item[Any]] = []
        self._thread: threading.Thread | None = None
        self._closing = False
        self._is_stuck = False
        self._wire: Wire | None = None

    def run(self, task_id: str, work: Work[T]) -> T:
        """Do `work`, which touches the rows of this task alone; when this returns, it is committed.

        Raises Undone: it was not done, and is to be done alone. Raises StoreUnavailable: it may be
        done again, but what was begun may yet be committed.
        """
        item = _Item(task_id, work)
        with self._mutex:
            if self._closing:
                raise StoreUnavailable("the store is closing")
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="writer", daemon=True)
                self._thread.start()
            self._arrived.put(item)
        self._wait(item)
        if item.error is not None:
            raise item.error
        return cast("T", item.result)

    def _wait(self, item: _Item[Any]) -> None:
        """Wait until the item is settled. Raises StoreUnavailable, and withdraws it, if that lasts.

        The server may hang, or be out of reach without a word.
        """
        patience = PATIENCE_WHEN_STUCK if self._is_stuck else PATIENCE
        if not item.gate.acquire(timeout=patience):
            self._is_stuck = True
            item.work = None
            raise StoreUnavailable(f"the database did not commit within {patience:g} s")

    def close(self) -> None:
        """Commit what waits, then let go of the database."""
        with self._mutex:
            thread, was_closing = self._thread, self._closing
            self._closing = True
            if not was_closing:
                self._arrived.put(None)
        if thread is not None:
            thread.join(PATIENCE)

    def _loop(self) -> None:
        is_last = False
        while not is_last or self._waiting:
            is_last = self._gather(is_last) or is_last
            batch = self._next_batch()
            if batch:
                self._settle(batch)
        self._drop_wire()

    def _gather(self, is_last: bool) -> bool:
        """Take in what arrived; wait for it if there is nothing to do. Was that the last?"""
        may_wait = not self._waiting and not is_last
        try:
            while item := self._arrived.get(block=may_wait):
                self._waiting.append(item)
                may_wait = False
        except Empty:
            return False
        return True

    def _next_batch(self) -> list[_Item[Any]]:
        """One of each task, the first: the next about it has to see what that one moved.

        In order of the tasks: two processes that both hold rows of several wait in no ring.
        """
        batch: dict[str, _Item[Any]] = {}
        later: list[_Item[Any]] = []
        for item in self._waiting:
            if item.work is None:
                continue
            if item.task_id in batch or len(batch) == MOST_AT_ONCE:
                later.append(item)
            else:
                batch[item.task_id] = item
        self._waiting = later
        return [batch[task_id] for task_id in sorted(batch)]

    def _settle(self, batch: list[_Item[Any]]) -> None:
        """Commit the batch, then open every gate."""
        failure: Exception | None = StoreUnavailable("the writer stopped")
        try:
            self._commit(batch)
            failure = None
        except (Lost, StoreUnavailable) as error:
            failure = StoreUnavailable(f"the database is unavailable: {error}")
        except Exception:  # noqa: BLE001 - done alone, it is raised again where it belongs
            failure = Undone()
        finally:
            self._is_stuck = False
            if failure is not None:
                self._drop_wire()
            for item in batch:
                item.error = failure
                item.gate.release()

    def _commit(self, batch: list[_Item[Any]]) -> None:
        was_open = self._wire is not None
        try:
            self._try(batch)
        except Lost:  # and nothing is committed
            if not was_open:
                raise
            self._drop_wire()  # the server may have restarted while nobody looked
            self._try(batch)

    def _try(self, batch: list[_Item[Any]]) -> None:
        wanted = [(item, item.work) for item in batch if item.work is not None]
        if not wanted:
            return
        self._wire = self._wire or Wire(self._url)
        results = commit_together(self._wire, [work for _, work in wanted])
        for (item, _), result in zip(wanted, results, strict=True):
            item.result = result

    def _drop_wire(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
