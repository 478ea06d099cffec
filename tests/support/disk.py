"""A simulated disk below SQLite that records what was synced, and that can fail.

SQLite accesses files through a table of functions, the VFS. `install` registers one that calls the
system's. It uses the library that this Python's `sqlite3` is linked to, so nothing has to be
installed or compiled.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path

# https://www.sqlite.org/rescode.html
FULL = 13  # SQLite's code for ENOSPC
FAILED_WRITE = 778  # for EIO in a write
FAILED_SYNC = 1034  # for EIO in a sync

WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


class Methods(Structure):
    """`sqlite3_io_methods`, version 3: https://www.sqlite.org/c3ref/io_methods.html."""

    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("the_rest", c_void_p * 13),
    )


class File(Structure):
    """`sqlite3_file`."""

    _fields_ = (("methods", POINTER(Methods)),)


OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(File), c_int, c_void_p)


class Vfs(Structure):
    """`sqlite3_vfs`, version 3: https://www.sqlite.org/c3ref/vfs.html."""

    _fields_ = (
        ("version", c_int),
        ("size_of_file", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("the_rest", c_void_p * 15),
    )


# If SQLite is built into Python, the module has no file, so Python itself is searched.
library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))

WHY_NOT = (
    "SQLite is built into this Python and cannot be watched; use one that links libsqlite3: "
    "apt-get install python3-venv, make clean, make test PYTHON=/usr/bin/python3"
)


def can_be_installed() -> bool:
    """Return whether SQLite's functions can be found; not every Python exports them."""
    return hasattr(library, "sqlite3_vfs_register")


class Disk:
    """The disk of one database. Several processes may install it."""

    def __init__(self, database: Path) -> None:
        self._database = str(database)
        self._synced = database.with_name("synced")
        self._fault = database.with_name("fault")
        self._kept: list[object] = []  # SQLite points to them, so they have to stay alive

    def begin(self) -> None:
        """Regard the existing files as synced. Call this once, before the disk is installed."""
        self._synced.mkdir()
        for file in (self._database, f"{self._database}-wal"):
            if Path(file).exists():
                self._remember(Path(file))

    def install(self) -> None:
        """Route every connection that this process opens from now on through this disk."""
        library.sqlite3_vfs_find.restype = POINTER(Vfs)
        vfs = Vfs.from_buffer_copy(library.sqlite3_vfs_find(None).contents)
        its_open = OPEN(vfs.open)

        @OPEN  # type: ignore[untyped-decorator]
        def open_(itself: int, name: int, file: ctypes._Pointer[File], flags: int, out: int) -> int:
            code: int = its_open(itself, name, file, flags, out)
            if code == 0 and name:
                self._watch(file, os.fsdecode(ctypes.string_at(name)))
            return code

        vfs.name, vfs.open = b"watched", ctypes.cast(open_, c_void_p).value
        self._kept += [vfs, open_]
        assert library.sqlite3_vfs_register(ctypes.byref(vfs), 1) == 0

    def _watch(self, file: ctypes._Pointer[File], name: str) -> None:
        if not name.startswith(self._database):
            return
        own = file.contents.methods.contents
        watched = Methods.from_buffer_copy(own)
        its_write, its_sync = WRITE(own.write), SYNC(own.sync)
        database = Path(name)

        @WRITE  # type: ignore[untyped-decorator]
        def write(itself: int, data: int, amount: int, offset: int) -> int:
            return self._fault_of("write") or its_write(itself, data, amount, offset)

        @SYNC  # type: ignore[untyped-decorator]
        def sync(itself: int, flags: int) -> int:
            with self._alone():
                code: int = self._fault_of("sync") or its_sync(itself, flags)
                if code == 0:
                    self._remember(database)
                return code

        watched.write = ctypes.cast(write, c_void_p).value
        watched.sync = ctypes.cast(sync, c_void_p).value
        self._kept += [watched, write, sync]
        file.contents.methods = ctypes.pointer(watched)

    # -- what was synced

    def _remember(self, file: Path) -> None:
        """Record that everything written to the file so far survives a power cut."""
        copy = self._synced / f".{file.name}"
        shutil.copyfile(file, copy)
        copy.replace(self._synced / file.name)

    def after_a_power_cut(self, folder: Path) -> None:
        """Copy to `folder` the data that a power cut at this moment would leave."""
        with self._alone():
            # Copies, not links: opening the copies must not change the recorded data. A process
            # that was killed while it recorded a file has left an incomplete copy.
            shutil.copytree(self._synced, folder, ignore=shutil.ignore_patterns(".*"))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Prevent all processes from syncing between the copies of two files."""
        with self._synced.with_name("synced-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # -- failures

    def break_(self, what: str, code: int) -> None:
        """Let every `write` or `sync` of every process fail with this code from now on."""
        self._fault.write_text(f"{what} {code}")

    def mend(self) -> None:
        self._fault.unlink()

    def _fault_of(self, what: str) -> int:
        try:
            broken, code = self._fault.read_text().split()
        except FileNotFoundError:
            return 0
        return int(code) if broken == what else 0
