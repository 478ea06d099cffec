"""Group commit: one writer for each process commits all that waits in one durable transaction.

With `synchronous=FULL` a commit costs a sync of the disk. While one sync runs the next batch
gathers, so that under load many requests share one. Nobody is answered before the commit that
holds their item is durable.

Every write, and so every automatic checkpoint, of every process happens under one file lock.
SQLite's own busy handler sleeps and starves, and SQLite before 3.51.3 can lose commits when a
write races a checkpoint (the WAL-reset bug); excluding the race excludes both.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from receiver.errors import StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
THE_ITEMS_OWN = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
PATIENCE = 8.0  # seconds a request waits for its commit: senders give up after 10 or more
PATIENCE_WHEN_STUCK = 1.0  # seconds; waiting requests must not take every thread of the web process


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection set up as this database wants it. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        path, isolation_level=None, timeout=5, check_same_thread=False, cached_statements=256
    )
    connection.row_factory = sqlite3.Row
    connection.execute("pragma foreign_keys = on")
    # A reader maps nothing: a truncated file would be a SIGBUS instead of an error.
    connection.execute("pragma mmap_size = 0")
    if read_only:
        connection.execute("pragma query_only = on")
    else:
        connection.execute("pragma synchronous = full")
        # On a Mac alone: there a plain sync leaves the data in the drive's own cache.
        connection.execute("pragma fullfsync = on")
        connection.execute("pragma secure_delete = on")
    return connection


def identity(path: Path) -> tuple[int, int]:
    """Which file this is, whatever its name. Raises OSError if there is none."""
    found = path.stat()
    return found.st_dev, found.st_ino


@contextmanager
def file_lock(database: Path) -> Iterator[None]:
    """Hold the lock that every writer of this database holds. Raises OSError."""
    descriptor = os.open(f"{database}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # the kernel lets go of the lock, also when the process dies


class _Item(Generic[T]):
    """One piece of work that waits for its commit; `gate` opens when it is settled."""

    __slots__ = ("error", "gate", "result", "work")

    def __init__(self, work: Work[T]) -> None:
        self.work: Work[T] | None = work  # None: whoever wanted it has gone
        self.result: T | None = None
        self.error: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class GroupCommit:
    """The writer of one process for one database; safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._waiting: list[_Item[Any]] = []
        self._work_is_there = threading.Lock()
        self._work_is_there.acquire()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._is_stuck = False
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def run(self, work: Work[T]) -> T:
        """Do `work` in a transaction; when this returns, it is durable.

        What `work` raises is raised here, and undoes that piece of work alone. Raises
        StoreUnavailable if the batch could not be committed, or not in time. The work may then be
        done again: what was not begun when its caller went is never done, but what was begun may
        yet be committed.
        """
        item = _Item(work)
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

    def _wait(self, item: _Item[Any]) -> None:
        """Wait until the item is settled. Raises StoreUnavailable, and withdraws it, if that lasts.

        Another process may be stopped while it holds the file lock, or the disk may hang.
        """
        patience = PATIENCE_WHEN_STUCK if self._is_stuck else PATIENCE
        if not item.gate.acquire(timeout=patience):
            self._is_stuck = True
            item.work = None
            raise StoreUnavailable(
                f"no commit within {patience:g} s: the disk hangs, or a process that does not go "
                f"on holds {self._path}-lock (see: fuser {self._path}-lock)"
            )

    def close(self) -> None:
        """Commit what waits, then let go of the database."""
        with self._mutex:
            thread, was_closing = self._thread, self._closing
            self._closing = True
            if thread is not None and not self._waiting and not was_closing:
                self._work_is_there.release()
        if thread is not None:
            thread.join(PATIENCE)

    def _loop(self) -> None:
        while True:
            self._work_is_there.acquire()
            with self._mutex:
                batch, self._waiting = self._waiting, []
                closing = self._closing
            if batch:
                self._settle(batch)
            if closing:
                self._drop_connection()
                return

    def _settle(self, batch: list[_Item[Any]]) -> None:
        """Commit the batch, then open every gate: with its result, its own error, or a 503."""
        failure: StoreUnavailable | None = StoreUnavailable("the writer stopped")
        try:
            with file_lock(self._path):
                self._commit(batch)
            failure = None
        except (sqlite3.Error, OSError) as error:
            self._drop_connection()  # it may be in any state; the next batch opens a new one
            failure = StoreUnavailable(f"could not commit: {error}")
        finally:
            self._is_stuck = False
            for item in batch:
                item.error = failure or item.error
                item.gate.release()

    def _commit(self, batch: list[_Item[Any]]) -> None:
        connection = self._connected()
        connection.execute("begin immediate")
        for item in batch:
            self._apply(connection, item)
        connection.execute("commit")

    def _connected(self) -> sqlite3.Connection:
        """The connection to the file that has the path now. Raises OSError if there is none.

        A file that was removed or replaced lives on for whoever has it open: what is written there
        is lost.
        """
        file = identity(self._path)
        if self._connection is None or file != self._file:
            self._drop_connection()
            self._connection, self._file = connect(self._path, read_only=False), file
        return self._connection

    def _apply(self, connection: sqlite3.Connection, item: _Item[Any]) -> None:
        work = item.work
        if work is None:
            return
        connection.execute("savepoint item")
        try:
            item.result = work(connection)
        except Exception as error:
            # Handed to the caller whose item it is, as a future would.
            if isinstance(error, sqlite3.Error) and not isinstance(error, THE_ITEMS_OWN):
                raise  # the database is in trouble: the batch fails, not this item
            connection.execute("rollback to item")
            item.error = error
        connection.execute("release item")

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # rolls back what was open
