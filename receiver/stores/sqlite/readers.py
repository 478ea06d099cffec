"""The reading connections of one SQLite file: the store owns them, a thread borrows one."""

from __future__ import annotations

import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from receiver.stores.sqlite.session import SqliteSession
from receiver.stores.sqlite.writer import connect, identity


@dataclass(slots=True, eq=False)
class Reader:
    """One connection, and the file that it was made to."""

    connection: SqliteSession
    file: tuple[int, int]
    is_reusable: bool


class Readers:
    """Opens a connection when all others are in use, and keeps it for the next reader.

    A connection belongs to no thread, so a thread that ends leaves none behind, and there are
    never more connections than reads that overlapped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[Reader] = []  # append and pop are atomic; the last used is the warmest
        self._is_closed = False
        self._watching = threading.Lock()
        self._watcher: Reader | None = None
        self._watchers = 0  # how many there were

    def take(self) -> Reader:
        """Return a connection for the caller's exclusive use, until `give_back`.

        Raises OSError if there is no file, and sqlite3.Error.
        """
        file = identity(self._path)  # connecting would make an empty file
        while reader := self._pop():
            if reader.file == file:
                return reader
            reader.connection.close()
        return self._opened(file)

    def give_back(self, reader: Reader) -> None:
        if not reader.is_reusable:
            reader.connection.close()
            return
        self._idle.append(reader)
        if self._is_closed:  # read last: `close` may have come before this connection
            self.close_idle()

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while reader := self._pop():
            reader.connection.close()

    def version(self) -> tuple[int, int]:
        """Return a value that changes with each commit of any process.

        SQLite's `data_version` cannot be compared between connections, so all threads share one
        connection for it. Raises OSError, sqlite3.Error.
        """
        with self._watching:
            watcher, self._watcher = self._watcher, None
            try:
                watcher = self._watching_now(watcher)
                count = int(watcher.connection.execute("pragma data_version").fetchone()[0])
            except (sqlite3.Error, OSError):
                if watcher is not None:
                    watcher.connection.close()
                raise
            if watcher.is_reusable and not self._is_closed:
                self._watcher = watcher
            else:
                watcher.connection.close()
            return self._watchers, count

    def close(self) -> None:
        """Close every connection; one that is in use is closed by the thread that uses it."""
        self._is_closed = True
        self.close_idle()
        with self._watching:
            watcher, self._watcher = self._watcher, None
            if watcher is not None:
                watcher.connection.close()

    def _watching_now(self, watcher: Reader | None) -> Reader:
        """The watcher, or a new one if the path has another file now."""
        file = identity(self._path)
        if watcher is not None and watcher.file == file:
            return watcher
        if watcher is not None:
            watcher.connection.close()
        opened = self._opened(file)
        if opened.is_reusable:  # the others, new at each call, would make each look like a commit
            self._watchers += 1
        return opened

    def _opened(self, file: tuple[int, int]) -> Reader:
        # While a connection to a read-only file is open, all others of the process are read-only
        # too: the writer could not recover when the file becomes writable again.
        is_reusable = self._is_writable()
        return Reader(connect(self._path, read_only=True), file, is_reusable)

    def _pop(self) -> Reader | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _is_writable(self) -> bool:
        files = (self._path, Path(f"{self._path}-shm"))
        return all(os.access(file, os.W_OK) for file in files if file.exists())
