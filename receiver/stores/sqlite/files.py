"""Detects that another program changed the files of an open database, and rescues the data.

A process writes to the files that it has opened, even after their names were removed or given to
other files. Commits to such files are lost when the last process that has them open ends.
Therefore, the writer compares the names with its open files before each batch, and again before it
reports a batch as durable.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from receiver.config import private_files
from receiver.observability.logger import Logger
from receiver.stores.sqlite.session import SqliteSession

Identity = tuple[int, int]  # of a file: device and inode
Connect = Callable[..., SqliteSession]
READERS_END_WITHIN = 2.0  # seconds for which a recovery waits for reads of this process
CHECKPOINT_WITHIN = 1_000  # ms for which a recovery waits for reads of other processes
PROBE_WITHIN = 0.2  # seconds
NOTES_KEPT = 20  # of rescued files; a process that was idle looks for its own files there
LOG_STARTS = (
    b"\x37\x7f\x06\x82",
    b"\x37\x7f\x06\x83",
)  # in https://www.sqlite.org/fileformat2.html
# The bytes of the database file that SQLite locks: see os.h in its source.
SHARED_LOCK = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0x40000002, 510, 0)
log = Logger()


class FilesChanged(OSError):
    """Another program removed or replaced files of the database while they were open."""


class LogEmptied(FilesChanged):
    """Another program emptied the log, so commits that were only in the log are lost."""


class Files(NamedTuple):
    """The files that have the names of a database's files. None if there is no such file."""

    database: Identity | None
    wal: Identity | None
    shm: Identity | None

    def changed_since(self, known: Files) -> list[str]:
        """Return the suffixes of the files that differ from those of `known`."""
        pairs = {
            "": (known.database, self.database),
            "-wal": (known.wal, self.wal),
            "-shm": (known.shm, self.shm),
        }
        return [suffix for suffix, (before, now) in pairs.items() if before not in (None, now)]


def identity(path: Path) -> Identity:
    """Return the device and inode of the file. Raises OSError if it does not exist."""
    found = path.stat()
    return found.st_dev, found.st_ino


def file_names(database: Path) -> tuple[str, str, str]:
    """Return the names of the database file, the log and its index."""
    return str(database), f"{database}-wal", f"{database}-shm"


def current_files(database: str, wal: str, shm: str) -> Files:
    """Return the files that have these names now."""
    identities: list[Identity | None] = []
    for name in (database, wal, shm):
        try:
            found = os.stat(name)  # noqa: PTH116 - often, and `Path` takes twice as long
        except OSError:
            identities.append(None)
        else:
            identities.append((found.st_dev, found.st_ino))
    return Files(*identities)


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size  # noqa: PTH116 - as above
    except OSError:
        return 0


def _is_log(path: Path) -> bool:
    """Return whether the file is a write-ahead log that contains something."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(LOG_STARTS[0])) in LOG_STARTS
    return False


@contextmanager
def file_lock(database: Path) -> Iterator[None]:
    """Hold the lock that every writer of this database holds. Raises OSError."""
    name = Path(f"{database}-lock")
    while True:
        descriptor = private_files.open_file(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                is_current = os.path.samestat(os.fstat(descriptor), name.stat())
            except FileNotFoundError:
                is_current = False
            if is_current:  # otherwise, it was removed, and others lock the one with its name now
                yield
                return
        finally:
            os.close(descriptor)  # releases the lock, as does the kernel if the process dies


def check_complete(path: Path) -> None:
    """Raise FilesChanged if the database is in use, but its -wal or -shm file is missing.

    The caller holds the file lock. A new connection would create the missing file, and combine it
    with a database that others write to through the removed one.
    """
    if _is_partial(path) and path.exists() and _is_in_use(path):
        raise FilesChanged(
            f"the -wal or -shm file of {path} was removed while another process has it open; that "
            "process restores it before its next write, or when it stops"
        )


def _is_partial(path: Path) -> bool:
    found = current_files(*file_names(path))
    return None in (found.wal, found.shm)


def _is_in_use(path: Path) -> bool:
    """Return whether any connection to the database is open, by requesting exclusive use."""
    name = quote(str(path.absolute()))
    probe = sqlite3.connect(f"file:{name}?mode=rw", uri=True, timeout=PROBE_WITHIN)
    try:
        probe.execute("pragma locking_mode = exclusive")
        probe.execute("pragma schema_version").fetchone()  # a read that does not load the schema
    except sqlite3.OperationalError as error:
        return (error.sqlite_errorcode & 0xFF) == sqlite3.SQLITE_BUSY
    except sqlite3.Error:
        pass  # the caller's own connection will raise the same error
    finally:
        probe.close()
    return False


class OpenFiles:
    """The connections of one store, and the files that they have open. Thread-safe.

    All connections of a process share one open `-shm` file, so that a process can open new files
    only after it has closed all its connections. `generation` counts how often it did so.
    """

    def __init__(self, path: Path) -> None:
        self.generation = 0
        self._path, self._file_names = path, file_names(path)
        self._mutex = threading.Condition()
        self._connections: dict[int, SqliteSession] = {}  # by id
        self._file: BinaryIO | None = None  # the database file, while connections are open
        self._unused: list[SqliteSession] = []  # those that `close` has left open
        self._known: Files | None = None  # None while no connection is open
        self._log_size = 0  # bytes, at the last commit of this process
        self._reads = 0  # reads of this process that are in progress
        self._is_recovering = False
        self._is_restored = False  # this process may create the missing files

    def begin_read(self) -> None:
        """Make a recovery in this process wait until `end_read`. Raises OSError."""
        with self._mutex:
            if self._is_recovering and not self._mutex.wait_for(
                lambda: not self._is_recovering, READERS_END_WITHIN
            ):
                raise OSError(f"{self._path} is being opened again")
            self._reads += 1

    def end_read(self) -> None:
        """End a read that `begin_read` began."""
        with self._mutex:
            self._reads -= 1
            if self._is_recovering:
                self._mutex.notify_all()

    def check(self) -> None:
        """Raise FilesChanged if the names refer to other files than the open ones.

        Raises FileNotFoundError if there is no database.
        """
        found = current_files(*self._file_names)
        if found == self._known:
            return
        if found.database is None:
            identity(self._path)  # raises the OSError
        if changed := self._changed(found):
            raise FilesChanged(f"another program removed or replaced {self._names(changed)}")

    @property
    def is_open(self) -> bool:
        """Whether any connection is open."""
        return bool(self._connections)

    @property
    def are_changed(self) -> bool:
        """Whether the names refer to other files than the open ones."""
        return bool(self._changed(current_files(*self._file_names)))

    def check_log(self, connection: SqliteSession) -> None:
        """Raise FilesChanged if another program emptied the log: see `check`.

        The caller holds the file lock, and the connection is in no transaction. One of our own
        checkpoints emptied the log, unless its index still contains frames.
        """
        before, self._log_size = self._log_size, _size(self._file_names[1])
        if self._log_size == 0 and before > 0 and self._has_lost_frames(connection):
            raise LogEmptied(f"another program emptied {self._path}-wal")

    def open(self, connect: Connect, *, read_only: bool, has_lock: bool = False) -> SqliteSession:
        """Open a connection with `connect`. `has_lock`: whether the caller holds the file lock.

        Raises sqlite3.Error, and FilesChanged if the connection would combine files that do not
        belong together.
        """
        self.check()
        with nullcontext() if has_lock or not self._is_partial() else self._lock_if_permitted():
            if self._is_partial() and not self._is_restored:
                check_complete(self._path)
            before = current_files(*self._file_names)
            connection = connect(self._path, read_only=read_only)
            try:
                # SQLite opens the other two files only for the first statement that reads.
                connection.execute("select 1 from sqlite_master limit 1").fetchone()
                self._register(connection, before)
                if has_lock:
                    self._remove_obsolete_note()
            except BaseException:
                self._close([connection])
                connection.close()
                raise
        return connection

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the bytes of the database file. Raises OSError.

        The file stays open as long as a connection: whenever a process closes a file, it loses all
        its locks on it. Without them, another process that closes its connections would remove the
        log that this process writes to, as if no other process had the database open.
        """
        with self._mutex:
            file = self._file = self._file or self._path.open("rb", buffering=0)
        try:
            place = 0
            while piece := os.pread(file.fileno(), size, place):
                yield piece
                place += len(piece)
        except ValueError:  # it was closed meanwhile
            raise FilesChanged(f"{self._path} was reopened while it was being read") from None
        finally:
            self._close([])

    @contextmanager
    def alone(self, connect: Connect) -> Iterator[SqliteSession]:
        """Open a connection for the block, while no writer of any process can write.

        Raises sqlite3.Error and OSError, and FilesChanged if files were changed.
        """
        with file_lock(self._path):
            connection = self.open(connect, read_only=False, has_lock=True)
            try:
                yield connection
                self.check()
            finally:
                self.close(connection)

    def close(self, connection: SqliteSession) -> None:
        """Close a connection, unless its files were changed, because `recover` needs it then."""
        if id(connection) in self._connections:
            self._unused.append(connection)
        if self._unused and not self.are_changed:
            self._close(self._unused)

    def close_all(self) -> None:
        """Rescue the data of changed files, then close the connections that `close` left open."""
        if self._connections and self.are_changed:
            try:
                with file_lock(self._path):
                    self.recover()
            except (sqlite3.Error, OSError) as error:
                log.error("the files of the database could not be restored", error=str(error))
        self._close(self._unused)

    def recover(self, *, has_lost_log: bool = False) -> bool:
        """Close all connections to files that were changed, after rescuing committed data.

        The caller holds the file lock, and no connection is in a transaction. The log is written
        back to the database file. The remaining names are removed, so that other processes detect
        the change as well. Raises FilesChanged or sqlite3.Error if that is not possible yet; then
        all connections stay open, and the next attempt may succeed. Returns whether this process
        was the first to detect the change.
        """
        with self._mutex:
            self._is_recovering = True
            is_free = self._mutex.wait_for(lambda: not self._reads, READERS_END_WITHIN)
        try:
            if not is_free:
                raise FilesChanged(f"{self._path}: a read delays the restoring of the files")
            return self._recover(has_lost_log=has_lost_log)
        finally:
            with self._mutex:
                self._is_recovering = False
                self._mutex.notify_all()

    def _recover(self, *, has_lost_log: bool) -> bool:
        known, found = self._known, current_files(*self._file_names)
        if known is None:
            return False
        changed = self._changed(found) or (["-wal"] if has_lost_log else [])
        if not changed:
            return False
        if found.database is None:
            identity(self._path)  # raises an error, because the file may reappear
        is_rescued = self._was_rescued(known)  # by another process
        is_replaced = found.database != known.database
        # Other processes may have begun a new log, whose frames must not be mixed with ours.
        is_followed = found.wal not in (None, known.wal) and _is_log(Path(self._file_names[1]))
        is_kept = not (is_replaced or is_followed or has_lost_log)
        if not is_rescued:
            if is_kept:
                self._checkpoint()
            pairs = (("-wal", known.wal, found.wal), ("-shm", known.shm, found.shm))
            for suffix, before, now in pairs:
                if now == before or not (is_replaced or is_followed):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            self._write_notes([*self._notes(), rescue_note(known)])
            self._is_restored = True  # the caller holds the lock until the files are created
        with _no_checkpoint_at_close(self._path):
            self._close(list(self._connections.values()))
        if is_rescued:
            log.warning("reopened the files of the database, which another process restored")
            return False
        log.error(
            "another program removed, replaced or emptied files of the open database",
            files=self._names(changed),
            commits="all were kept" if is_kept else "some may be missing",
            remedy="stop the receiver before you change its files",
        )
        return True

    def _was_rescued(self, known: Files) -> bool:
        """Return whether another process has rescued these files, and reported the change."""
        return rescue_note(known) in self._notes()

    def _remove_obsolete_note(self) -> None:
        """Remove the note about earlier files that had the same identities as the open ones.

        A file system reuses the inode of a removed file once no process has it open, so
        no process needs the note then. The caller holds the file lock.
        """
        notes = self._notes()
        if self._known is not None and rescue_note(self._known) in notes:
            self._write_notes([note for note in notes if note != rescue_note(self._known)])

    def _notes(self) -> list[str]:
        """Return the notes in the lock file about abandoned files, the newest last."""
        with suppress(OSError, ValueError):
            return Path(f"{self._path}-lock").read_text().splitlines(keepends=True)
        return []

    def _write_notes(self, notes: list[str]) -> None:
        Path(f"{self._path}-lock").write_text("".join(notes[-NOTES_KEPT:]))

    def _checkpoint(self) -> None:
        """Write the open log to the database file, durably."""
        connection = next(iter(self._connections.values()))
        connection.execute(f"pragma busy_timeout = {CHECKPOINT_WITHIN}")
        busy, logged, written = connection.execute("pragma wal_checkpoint(full)").fetchone()
        if busy or logged != written:
            raise FilesChanged(f"{self._path}: another process is reading the data to rescue")

    def _has_lost_frames(self, connection: SqliteSession) -> bool:
        """Return whether the index of the empty log contains frames."""
        try:
            # The log is empty, so this checkpoint writes nothing.
            return int(connection.execute("pragma wal_checkpoint(passive)").fetchone()[1]) > 0
        except sqlite3.Error:
            return True

    def _changed(self, found: Files) -> list[str]:
        """Return the suffixes of the changed files, and remember new files."""
        known = self._known
        if known is None:
            return []
        changed = found.changed_since(known)
        if not changed and found != known:
            self._known = found
        return changed

    def _is_partial(self) -> bool:
        """Return whether no file is open in this process, and the -wal or -shm file is missing."""
        return self._known is None and _is_partial(self._path)

    def _register(self, connection: SqliteSession, before: Files) -> None:
        after = current_files(*self._file_names)
        # SQLite has created the missing files. If a name is missing now, its file was removed.
        is_complete = None not in after or not _has_log(connection)
        with self._mutex:
            known = self._known or before
            if after.changed_since(known) or not is_complete:
                raise FilesChanged(f"the files of {self._path} were changed while they were opened")
            self._known, self._is_restored = after, False
            self._connections[id(connection)] = connection

    def _close(self, connections: list[SqliteSession]) -> None:
        with self._mutex:
            for connection in tuple(connections):
                if self._connections.pop(id(connection), None) is not None:
                    connection.close()
            self._unused = [unused for unused in self._unused if id(unused) in self._connections]
            if not self._connections:
                if self._file is not None:
                    self._file.close()
                    self._file = None
                self._known, self._log_size = None, 0
                self.generation += 1

    @contextmanager
    def _lock_if_permitted(self) -> Iterator[None]:
        """Hold the file lock, if the permissions of this user allow it; only then can it write."""
        with ExitStack() as stack:
            with suppress(OSError):
                stack.enter_context(file_lock(self._path))
            yield

    def _names(self, suffixes: list[str]) -> str:
        return ", ".join(f"{self._path}{suffix}" for suffix in suffixes)


def rescue_note(known: Files) -> str:
    """Return the note for the lock file that these files were abandoned for new ones."""
    return f"given up: {known}\n"


def _has_log(connection: SqliteSession) -> bool:
    """Return whether the database is in WAL mode."""
    return bool(connection.execute("pragma journal_mode").fetchone()[0] == "wal")


@contextmanager
def _no_checkpoint_at_close(path: Path) -> Iterator[None]:
    """Prevent SQLite from writing the log back when it closes the last connection.

    SQLite would also remove the file that now has the name of the log, which may be the log of
    other processes. The lock of an open file description acts like the lock of another process, so
    that SQLite cannot get the exclusive lock that it needs for that. Closing the file releases all
    locks of this process, which has closed all connections by then.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context(path.open("rb"))
            if sys.platform == "linux":
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, SHARED_LOCK)
        yield
