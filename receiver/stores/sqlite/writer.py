"""The writer of one SQLite file, with `synchronous=FULL` and an exclusive file lock.

Every write of every process, and therefore every automatic checkpoint, happens under this lock. It
replaces SQLite's busy handler, which polls and can starve a writer. It also prevents the WAL-reset
bug: before 3.51.3, SQLite can lose commits when a write races a checkpoint.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from receiver.errors import StoreUnavailable
from receiver.stores import group_commit
from receiver.stores.sqlite.files import FilesChanged, LogEmptied, OpenFiles, file_lock
from receiver.stores.sqlite.readers import connect
from receiver.stores.sqlite.session import SqliteSession

__all__ = ["SqliteWriter", "connect", "file_lock"]

Write = group_commit.Write[SqliteSession, Any]
WRITE_ERRORS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)


class SqliteWriter(group_commit.GroupCommit[SqliteSession]):
    """The writer of one process for one file."""

    def __init__(self, path: Path, files: OpenFiles | None = None) -> None:
        super().__init__()
        self._path = path
        self._files = files or OpenFiles(path)
        self._connection: SqliteSession | None = None
        self._generation = 0  # of the files that the connection has open
        self._changes = 0  # changes of files that are not counted in the record yet

    @property
    def _likely_cause(self) -> str:
        return (
            "the disk does not respond, or a stalled process holds "
            f"{self._path}-lock (to find it, run: fuser {self._path}-lock)"
        )

    def _commit_all(self, batch: list[Write]) -> Exception | None:
        try:
            with file_lock(self._path):
                self._commit(batch)
                return self._lost()
        except (sqlite3.Error, OSError) as error:
            self._disconnect()  # its state is unknown
            return StoreUnavailable(f"could not commit: {error}")

    def _commit(self, batch: list[Write]) -> None:
        """Commit the batch. Savepoints cost as much as writes: use them only if a write fails."""
        connection = self._connected()
        connection.execute("begin immediate")
        if not _do_all(connection, batch):
            connection.execute("rollback")
            connection.execute("begin immediate")
            for write in batch:
                _do_in_savepoint(connection, write)
        for _ in range(self._changes):
            from receiver.stores.sql.metrics import FILES_CHANGED, count  # noqa: PLC0415 - rare

            count(connection, FILES_CHANGED, "sqlite")
        self._statements_are_done()
        connection.execute("commit")
        self._changes = 0

    def _lost(self) -> StoreUnavailable | None:
        """Return an error if the batch was committed to files that have lost their names.

        It would be lost if the process was killed before the files are restored.
        """
        try:
            self._check()
        except FilesChanged as error:
            self._recover(error)
            self._connected()  # other processes wait for the files
            return StoreUnavailable(f"{error}; send it again")
        return None

    def _connected(self) -> SqliteSession:
        """Return a connection to the files that have the names now. Raises OSError.

        If files were removed or replaced, an open connection still refers to the old ones, where
        all writes would be lost.
        """
        try:
            self._check()
        except FilesChanged as error:
            self._recover(error)
        if self._connection is None or self._generation != self._files.generation:
            self._connection = self._files.open(connect, read_only=False, has_lock=True)
            self._generation = self._files.generation
            # Keep the pages that savepoints copy in memory: /tmp may be full.
            self._connection.execute("pragma temp_store = memory")
        return self._connection

    def _check(self) -> None:
        """Raise OSError if files of the database were removed, replaced or emptied."""
        self._files.check()
        if self._connection is not None and self._generation == self._files.generation:
            self._files.check_log(self._connection)

    def _recover(self, error: FilesChanged) -> None:
        is_new = self._files.recover(has_lost_log=isinstance(error, LogEmptied))
        self._changes += int(is_new)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._generation == self._files.generation:
            with suppress(sqlite3.Error):
                connection.rollback()
            self._files.close(connection)


def _do_all(connection: SqliteSession, batch: list[Write]) -> bool:
    """Execute all writes without savepoints. Returns False if one raises an error of its own."""
    try:
        for write in batch:
            write.do(connection)
    except sqlite3.Error as error:
        if not isinstance(error, WRITE_ERRORS):
            raise  # an error of the database concerns the whole batch
        return False
    except Exception:  # noqa: BLE001 - raised again when the write is repeated in a savepoint
        return False
    return True


def _do_in_savepoint(connection: SqliteSession, write: Write) -> None:
    """Execute a write in a savepoint, so that its error rolls back no other write."""
    connection.execute("savepoint one_write")
    try:
        write.do(connection)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and not isinstance(error, WRITE_ERRORS):
            raise
        connection.execute("rollback to one_write")
        write.raised = error  # raised to the caller of this write
    connection.execute("release one_write")
