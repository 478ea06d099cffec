"""Opens connections to one SQLite file, and keeps a pool of read-only ones."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from receiver.stores.sql.database import Values, storable_values
from receiver.stores.sqlite.files import OpenFiles
from receiver.stores.sqlite.session import SqliteSession


class SqliteReadingSession(SqliteSession):
    """A read-only connection, which searches for unstorable text in the form that is stored."""

    def execute(self, sql: str, values: Values = (), /) -> sqlite3.Cursor:  # type: ignore[override]
        try:
            return super().execute(sql, values)
        except UnicodeEncodeError:
            return super().execute(sql, storable_values(values))


def connect(path: Path, *, read_only: bool) -> SqliteSession:
    """Open a connection with the settings that this database needs. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        timeout=5,
        check_same_thread=False,
        cached_statements=256,
        factory=SqliteReadingSession if read_only else SqliteSession,
    )
    connection.row_factory = sqlite3.Row
    # Rows stay readable if they contain text that is not UTF-8, from a damaged file for example.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    connection.execute("pragma foreign_keys = on")
    # No memory mapping: a truncated file would cause a SIGBUS instead of an error.
    connection.execute("pragma mmap_size = 0")
    if read_only:
        connection.execute("pragma query_only = on")
    else:
        connection.execute("pragma synchronous = full")
        # Only for macOS, where a plain fsync leaves the data in the drive's cache.
        connection.execute("pragma fullfsync = on")
        connection.execute("pragma secure_delete = on")
    return connection


@dataclass(slots=True, eq=False)
class Reader:
    """A connection, and the generation of the files that it has open."""

    connection: SqliteSession
    generation: int
    is_reusable: bool


class Readers:
    """Opens a connection when all others are in use, and reuses it afterwards.

    Connections do not belong to threads, so a thread that ends leaves none open, and there are
    never more connections than concurrent reads.
    """

    def __init__(self, path: Path, files: OpenFiles) -> None:
        self._path, self._files = path, files
        self._idle: list[
            Reader
        ] = []  # append and pop are atomic; the last one was used most recently
        self._is_closed = False
        self._watching = threading.Lock()
        self._watcher: Reader | None = None
        self._watchers = 0  # how many were opened so far

    def take(self) -> Reader:
        """Begin a read, and return a connection for the caller's exclusive use until `give_back`.

        Raises OSError if there is no file, FilesChanged if files were changed, and sqlite3.Error.
        """
        self._files.begin_read()
        try:
            self._files.check()
            try:
                while True:
                    reader = self._idle.pop()
                    if reader.generation == self._files.generation:
                        return reader
            except IndexError:  # all connections are in use
                pass
            return self._opened()
        except BaseException:
            self._files.end_read()
            raise

    def give_back(self, reader: Reader) -> None:
        """End the read. Return its connection to the pool, or close it if it is not reusable."""
        if reader.is_reusable:
            self._idle.append(reader)
            if self._is_closed:  # checked last, because `close` may have run before the append
                self.close_idle()
        else:
            self._close(reader)
        self._files.end_read()

    def close_idle(self) -> None:
        """Close the connections that are not in use."""
        with suppress(IndexError):  # another thread took the last one
            while self._idle:
                self._close(self._idle.pop())

    def version(self) -> tuple[int, int]:
        """Return a value that changes with each commit of any process.

        SQLite's `data_version` cannot be compared between connections, so all threads share one
        connection for it. Raises as `take`.
        """
        self._files.begin_read()
        try:
            with self._watching:
                return self._version()
        finally:
            self._files.end_read()

    def _version(self) -> tuple[int, int]:
        watcher, self._watcher = self._watcher, None
        try:
            watcher = self._watching_now(watcher)
            count = int(watcher.connection.execute("pragma data_version").fetchone()[0])
        except (sqlite3.Error, OSError):
            if watcher is not None:
                self._close(watcher)
            raise
        if watcher.is_reusable and not self._is_closed:
            self._watcher = watcher
        else:
            self._close(watcher)
        return self._watchers, count

    def close(self) -> None:
        """Close all connections; those in use are closed when they are given back."""
        self._is_closed = True
        self.close_idle()
        with self._watching:
            watcher, self._watcher = self._watcher, None
            if watcher is not None:
                self._close(watcher)

    def _watching_now(self, watcher: Reader | None) -> Reader:
        """Return the watcher, or a new one if it was closed."""
        self._files.check()
        if watcher is not None and watcher.generation == self._files.generation:
            return watcher
        opened = self._opened()
        if opened.is_reusable:  # otherwise, each call would open one, and look like a commit
            self._watchers += 1
        return opened

    def _opened(self) -> Reader:
        # While a connection to a read-only file is open, all connections of the process are
        # read-only, so the writer could not write after the file becomes writable again.
        is_reusable = self._is_writable()
        connection = self._files.open(connect, read_only=True)
        return Reader(connection, self._files.generation, is_reusable)

    def _close(self, reader: Reader) -> None:
        if reader.generation == self._files.generation:  # otherwise, it was closed already
            self._files.close(reader.connection)

    def _is_writable(self) -> bool:
        files = (self._path, Path(f"{self._path}-shm"))
        return all(os.access(file, os.W_OK) for file in files if file.exists())
