"""One SQLite file: its schema, one writer, and a reading connection for each thread."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Signal
from typing import TypeVar

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.stores.sql.session import Rooms, Session
from receiver.stores.sqlite import engine, pages, schema, space
from receiver.stores.sqlite.session import SqliteSession
from receiver.stores.sqlite.writer import GroupCommit, connect, identity

T = TypeVar("T")
POLL_EVERY = 0.015  # seconds; asking for `data_version` costs microseconds


class Connections(Rooms):
    """How the verbs reach the file."""

    _pages = pages

    def __init__(self, path: Path) -> None:
        self._path = path
        self.writer = GroupCommit(path)
        self._readers = threading.local()

    def migrate(self) -> list[str]:
        try:
            _make_folder(self._path.parent)
            return schema.migrate(self._path)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error

    def check_schema(self) -> None:
        if not self._path.exists():
            raise SchemaMismatch(f"{self._path} does not exist yet; run: receiver migrate")
        with self._read() as connection:
            schema.check(connection, self._path)

    def engine(self) -> str:
        return engine.described(sqlite3.sqlite_version_info)

    def give_back(self, pages: int) -> int:
        try:
            return space.give_back(self._path, pages)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error

    def settle_sequences(self) -> None:
        """Nothing to do: the next row key is one more than the greatest."""

    def close(self) -> None:
        self.writer.close()
        self._drop_reader()

    @contextmanager
    def alone(self) -> Iterator[None]:
        path = self._path.with_name("batch.lock")
        try:
            file = path.open("ab")
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}") from error
        with file:  # closing it lets go
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def wait_for_commit(self, timeout: float, stop: Signal) -> None:
        with self._read() as connection:
            # What was committed since this thread's last wait ended counts: no wake-up is missed
            # between looking for work and waiting for more.
            before = getattr(self._readers, "version", None)
            rounds = max(1, int(timeout / POLL_EVERY))
            for _ in range(rounds):
                self._readers.version = _data_version(connection)
                if self._readers.version != before or stop.wait(POLL_EVERY):
                    return

    def _write(self, work: Callable[[Session], T]) -> T:
        return self.writer.run(work)

    @contextmanager
    def _read(self) -> Iterator[SqliteSession]:
        """This thread's reading connection. Raises StoreUnavailable."""
        try:
            yield self._reader()
        except FileNotFoundError as error:
            raise StoreUnavailable(f"{self._path} does not exist; run: receiver migrate") from error
        except (sqlite3.Error, OSError) as error:
            self._drop_reader()
            raise StoreUnavailable(f"could not read {self._path}: {error}") from error
        finally:
            if not self._is_kept:
                self._drop_reader()

    @property
    def _is_kept(self) -> bool:
        """Was the file writable when this thread's connection was made?

        While a connection to a read-only file is open, all others of the process are read-only too:
        the writer could not heal once the file may be written.
        """
        return getattr(self._readers, "is_kept", True)

    def _reader(self) -> SqliteSession:
        file = identity(self._path)  # connecting would make an empty file
        known: tuple[tuple[int, int], SqliteSession] | None
        known = getattr(self._readers, "known", None)
        if known is None or known[0] != file:
            self._drop_reader()
            self._readers.is_kept = self._is_writable()
            known = self._readers.known = (file, connect(self._path, read_only=True))
        return known[1]

    def _is_writable(self) -> bool:
        files = (self._path, Path(f"{self._path}-shm"))
        return all(os.access(file, os.W_OK) for file in files if file.exists())

    def _drop_reader(self) -> None:
        known = getattr(self._readers, "known", None)
        self._readers.known = None
        if known is not None:
            known[1].close()


def _make_folder(folder: Path) -> None:
    """Make it so that a power cut leaves it there. SQLite sees to the names inside it."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        descriptor = os.open(made.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # a folder's name is data of the folder that it is in
        finally:
            os.close(descriptor)


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma data_version").fetchone()[0])
