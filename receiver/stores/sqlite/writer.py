"""The writer of one SQLite file: with `synchronous=FULL`, and alone.

Every write, and so every automatic checkpoint, of every process happens under one file lock.
SQLite's own busy handler sleeps and starves, and SQLite before 3.51.3 can lose commits when a
write races a checkpoint (the WAL-reset bug); excluding the race excludes both.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from receiver.errors import StoreUnavailable
from receiver.stores import group_commit
from receiver.stores.sqlite.session import SqliteSession

Write = group_commit.Write[SqliteSession, Any]
OF_ONE_WRITE = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)


def connect(path: Path, *, read_only: bool) -> SqliteSession:
    """A connection set up as this database wants it. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        timeout=5,
        check_same_thread=False,
        cached_statements=256,
        factory=SqliteSession,
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


class GroupCommit(group_commit.GroupCommit[SqliteSession]):
    """The writer of one process for one file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._connection: SqliteSession | None = None
        self._file: tuple[int, int] | None = None

    @property
    def _in_the_way(self) -> str:
        return (
            "the disk hangs, or a process that does not go on holds "
            f"{self._path}-lock (see: fuser {self._path}-lock)"
        )

    def _commit_all(self, batch: list[Write]) -> Exception | None:
        try:
            with file_lock(self._path):
                self._commit(batch)
        except (sqlite3.Error, OSError) as error:
            self._let_go()  # it may be in any state; the next batch opens a new one
            return StoreUnavailable(f"could not commit: {error}")
        return None

    def _commit(self, batch: list[Write]) -> None:
        """A savepoint for each write would cost as much as it: only if one fails are there any."""
        connection = self._connected()
        connection.execute("begin immediate")
        if not _all_went_well(connection, batch):
            connection.execute("rollback")
            connection.execute("begin immediate")
            for write in batch:
                _do_alone(connection, write)
        self._needs_no_python()
        connection.execute("commit")

    def _connected(self) -> SqliteSession:
        """The connection to the file that has the path now. Raises OSError if there is none.

        A file that was removed or replaced lives on for whoever has it open: what is written there
        is lost.
        """
        file = identity(self._path)
        if self._connection is None or file != self._file:
            self._let_go()
            self._connection, self._file = connect(self._path, read_only=False), file
            # A savepoint copies pages: to a file of /tmp, which may be full, unless told so.
            self._connection.execute("pragma temp_store = memory")
        return self._connection

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # rolls back what was open


def _all_went_well(connection: SqliteSession, batch: list[Write]) -> bool:
    """Do all of the batch, without a savepoint for each; not if one of them raises."""
    try:
        for write in batch:
            write.do(connection)
    except sqlite3.Error as error:
        if not isinstance(error, OF_ONE_WRITE):
            raise  # the database is in trouble: the batch fails, not this write
        return False
    except Exception:  # noqa: BLE001 - it is done again by itself, and raises again
        return False
    return True


def _do_alone(connection: SqliteSession, write: Write) -> None:
    """Do it so that what it raises undoes nothing else."""
    connection.execute("savepoint one_write")
    try:
        write.do(connection)
    except Exception as error:
        # Handed to the caller whose write it is.
        if isinstance(error, sqlite3.Error) and not isinstance(error, OF_ONE_WRITE):
            raise
        connection.execute("rollback to one_write")
        write.raised = error
    connection.execute("release one_write")
