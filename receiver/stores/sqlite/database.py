"""One SQLite file, with one writer and a pool of reading connections."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Signal
from typing import Any, TypeVar

from receiver.config import private_files
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.stores.sql.database import Database, DiskSpace, Query, RowKeyRange, Session
from receiver.stores.sqlite import schema, space
from receiver.stores.sqlite.files import FilesChanged, OpenFiles
from receiver.stores.sqlite.readers import Readers
from receiver.stores.sqlite.session import SqliteSession
from receiver.stores.sqlite.writer import SqliteWriter

T = TypeVar("T")
POLL_EVERY = 0.015  # seconds; `Readers.version` takes microseconds
OPENED_WITHIN = 3.0  # seconds for which a starting process waits for restored files

Version = tuple[int, int, int]
FIXED: Version = (3, 51, 3)  # without the WAL-reset bug
BACKPORTS: tuple[Version, ...] = ((3, 44, 6), (3, 50, 7))


class SqliteDatabase(Database):
    """The record in one SQLite file; see `stores.sql.database.Database`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = OpenFiles(path)
        self.writer = SqliteWriter(path, self._files)
        self.readers = Readers(path, self._files)
        self._seen = threading.local()  # `version`: the version when this thread's last wait ended

    def migrate(self) -> list[str]:
        with self._errors_reported():
            private_files.create_folder(self._path.parent)
            return schema.migrate(self._path)

    def check_schema(self) -> None:
        if not self._path.exists():
            message = f"{self._path} does not exist yet; run: receiver migrate"
            if not self._path.is_absolute():
                message += f", or change to the directory of the installation from {Path.cwd()}"
            raise SchemaMismatch(message)
        with self.reading() as connection:
            schema.check(connection, self._path)

    def version(self) -> str:
        return version_text(sqlite3.sqlite_version_info)

    def pooler(self) -> None:
        """Return None: a file has no pooler."""

    def space(self) -> DiskSpace:
        log = self._path.with_name(self._path.name + "-wal")
        try:
            used = self._path.stat().st_size + (log.stat().st_size if log.exists() else 0)
            return DiskSpace(used, shutil.disk_usage(self._path.parent).free)
        except OSError as error:
            raise self._unavailable(error) from error

    def shrink(self, pages: int) -> int:
        with self._errors_reported():
            return space.shrink(self._files, pages)

    def finish_erasure(self) -> bool:
        with self._errors_reported():
            return space.finish_erasure(self._files)

    def remove_remnants(self, reference: str) -> None:
        with self.reading() as connection:
            sql = "select 1 from tasks where reference = ? limit 1"
            if connection.execute(sql, (reference,)).fetchone() is not None:
                return  # another task has the same reference
        with self._errors_reported():
            if space.has_remnants(self._files, reference):
                self.write(self.note_erasure)
                space.rebuild(self._files)
                self.finish_erasure()

    def held_by(self, mark: int) -> str:
        del mark  # the log is truncated as a whole
        return (
            f"a program that reads {self._path} keeps a copy in {self._path}-wal; "
            f"to find the program, run: fuser -v {self._path}-wal"
        )

    def server_clock(self) -> None:
        """Return None: the database runs on this machine."""

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        sql = f"insert into {table} ({names}) values ({marks})"  # noqa: S608 - of `Transfer`
        self.write(lambda session: session.executemany(sql, rows))

    def settle_sequences(self) -> None:
        """Do nothing: a new row key is always the greatest one plus 1."""

    def close(self) -> None:
        self.writer.close()
        self.readers.close()
        self._files.close_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        path = self._path.with_name("batch.lock")
        try:
            file = os.fdopen(private_files.open_file(path, os.O_WRONLY | os.O_APPEND), "ab")
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}") from error
        with file:  # closing it releases the lock
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def wait_for_commit(self, timeout: float, stop: Signal) -> None:
        # A commit since this thread's last wait ended counts, so that none is missed between
        # looking for work and waiting for more.
        before = getattr(self._seen, "version", None)
        until, is_last = time.monotonic() + timeout, False
        while not is_last:
            left = until - time.monotonic()
            is_last = left <= POLL_EVERY
            self._seen.version = self.commit_mark()
            if self._seen.version != before or stop.wait(max(0.001, min(left, POLL_EVERY))):
                return

    def commit_mark(self) -> tuple[int, int]:
        try:
            try:
                return self.readers.version()
            except FilesChanged:
                self._restore_files()
                return self.readers.version()
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def running_transactions(self) -> None:
        """Return None, because there is one writer, and each new row has the greatest key."""

    def write(self, work: Callable[[Session], T], about: str | None = None) -> T:
        return self.writer.run(work, about or "")

    # SQLite has no statistics of this database, so it might use the index of a common value and
    # read most of the table. A `+` before a column prevents the use of its index.

    def walk(
        self,
        table: str,
        key: str,
        equal: Mapping[str, object],
        keys: RowKeyRange,
        rest: Query,
        limit: int,
    ) -> Query:
        conditions = [*(f"{column} = ?" for column in equal), f"{key} >= ?", f"{key} < ?"]
        more, values = rest
        sql = (
            f"select {key} as id from {table} where {' and '.join(conditions)}{more} "  # noqa: S608 - of `list_keys`
            f"order by {key} desc limit ?"
        )
        return sql, [*equal.values(), keys.first, keys.end, *values, limit]

    def indexed_by(self, index: str) -> str:
        return f" indexed by {index}"

    def unindexed(self, column: str) -> str:
        return f"+{column}"

    @contextmanager
    def reading(self) -> Iterator[SqliteSession]:
        """Return a read-only connection for the block's exclusive use. Raises StoreUnavailable."""
        try:
            try:
                reader = self.readers.take()
            except FilesChanged:
                self._restore_files()
                reader = self.readers.take()
        except (sqlite3.Error, OSError) as error:
            self.readers.close_idle()
            raise self._unavailable(error) from error
        try:
            yield reader.connection
            self._files.check()  # if they were changed, the result may be incomplete
        except (sqlite3.Error, OSError) as error:
            reader.is_reusable = False
            self.readers.close_idle()  # the other connections may be in the same state
            raise self._unavailable(error) from error
        finally:
            self.readers.give_back(reader)

    def _restore_files(self) -> None:
        """Make the writer open the files again, after another program changed them.

        Only a process that has them open can restore them; a starting process waits for that.
        """
        until = time.monotonic() + OPENED_WITHIN
        while True:
            try:
                return self.writer.run(_nothing)
            except StoreUnavailable:
                if self._files.is_open or self.writer.is_closing or time.monotonic() > until:
                    raise
            time.sleep(POLL_EVERY)

    @contextmanager
    def _errors_reported(self) -> Iterator[None]:
        """Raise StoreUnavailable, with the path, for errors of the file in the block."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error

    def _unavailable(self, error: sqlite3.Error | OSError) -> StoreUnavailable:
        if isinstance(error, FileNotFoundError):
            return StoreUnavailable(f"{self._path} does not exist; run: receiver migrate")
        return StoreUnavailable(f"could not read {self._path}: {error}")


def _nothing(_: Session) -> None:
    """Do nothing: the writer checks the files before each batch."""


def version_text(version: Version) -> str:
    """Return the name of this version of SQLite, and whether it depends on our file lock."""
    name = f"SQLite {'.'.join(map(str, version))}"
    if not has_wal_reset_bug(version):
        return name
    return f"{name}; its commits are protected by our file lock (docs/operating.md)"


def has_wal_reset_bug(version: Version) -> bool:
    """Return whether a write that races a checkpoint can lose commits."""
    is_fixed = any(version[:2] == fix[:2] and version >= fix for fix in BACKPORTS)
    return version < FIXED and not is_fixed
