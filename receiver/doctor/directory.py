"""Checks the directory of the database: free space, durable writes, and who has access."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from receiver.config import private_files
from receiver.doctor.findings import Finding, failed, ok, warning

DISK, PERMISSIONS = "disk", "permissions"
SCARCE, TOO_LITTLE = 1_000_000_000, 50_000_000  # bytes
SLOW = 0.1  # seconds for one sync: every batch of callbacks waits for one
FREE_SPACE = "free some space, then: receiver prune --older-than 30d"
GROUP_AND_OTHERS = 0o077


def check(database: Path) -> Iterator[Finding]:
    """Check the disk and the permissions of the database's directory."""
    folder = database.parent
    if not folder.is_dir():
        yield failed(DISK, f"{folder} does not exist", "run: receiver migrate")
        return
    yield free_space(folder)
    yield write(folder)
    found = list(_open_files(database))
    if (mode := _mode(folder)) & private_files.OTHERS:
        problem = (
            f"every user of this machine can open the directory {folder} (mode {mode:04o}); "
            "it existed before, so its mode was not changed"
        )
        remedy = f"if only the receiver uses it: chmod 700 {folder}"
        found.append(warning(PERMISSIONS, problem, remedy))
    yield from found or [ok(PERMISSIONS, f"only the owner can read the database in {folder}")]


def free_space(folder: Path) -> Finding:
    """Check whether the file system has space for more data."""
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free in {folder}"
    if free < TOO_LITTLE:
        return failed(DISK, text, FREE_SPACE)
    return warning(DISK, text, FREE_SPACE) if free < SCARCE else ok(DISK, text)


def write(folder: Path) -> Finding:
    """Check whether files can be written, and how long a sync takes."""
    try:
        seconds = _sync(folder)
    except OSError as error:
        problem = f"{folder} cannot be written: {error.strerror}"
        return failed(DISK, problem, "allow this user to write there; see: df, ls -l")
    text = f"{folder} is writable; a sync takes {seconds * 1000:.1f} ms"
    if seconds > SLOW:
        return warning(DISK, text, "use a faster disk, because every batch of callbacks is synced")
    return ok(DISK, text)


def _sync(folder: Path) -> float:
    """Store a file durably and remove it; return the seconds that the sync took."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        file.write(b"x" * 4096)
        file.flush()
        started_at = time.monotonic()
        os.fsync(file.fileno())
        return time.monotonic() - started_at


def _open_files(database: Path) -> Iterator[Finding]:
    """Yield a warning for each of our files that users other than its owner can read or write."""
    for file in private_files.database_files(database):
        mode = _mode(file) if file.is_file() else 0
        if mode & GROUP_AND_OTHERS:
            users = "every user of this machine" if mode & private_files.OTHERS else "its group"
            problem = f"{users} has access to {file} (mode {mode:04o})"
            yield warning(PERMISSIONS, problem, f"unless this is intended: chmod 600 {file}")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
