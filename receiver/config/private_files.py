"""Files and directories that only their owner may read, whatever the umask.

The database, its lock files and the callback secret hold personal data and secrets. An existing
directory belongs to the operator and is never changed; `receiver doctor` warns about its
permissions.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

FILE, FOLDER = 0o600, 0o700
OTHERS = 0o007


def create_folder(folder: Path) -> None:
    """Create the directory and its missing parents with mode 0700, durably. Raises OSError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        try:
            path.mkdir(FOLDER)
        except FileExistsError:  # another process created it meanwhile
            continue
        path.chmod(FOLDER)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name is stored in the parent directory
        finally:
            os.close(descriptor)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def open_file(path: Path, flags: int = os.O_RDWR) -> int:
    """Open the file and return its descriptor; create it with mode 0600 if it does not exist.

    Raises OSError.
    """
    with suppress(FileNotFoundError):
        return os.open(path, flags | os.O_CLOEXEC)
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, FILE)
    except FileExistsError:  # another process created it meanwhile
        return os.open(path, flags | os.O_CLOEXEC)
    os.fchmod(descriptor, FILE)
    return descriptor


def create_file(path: Path) -> None:
    """Create an empty file with mode 0600, unless the file exists. Raises OSError."""
    os.close(open_file(path))


def create_with(path: Path, text: str) -> bool:
    """Create a file with this text and mode 0600, atomically and durably, unless it exists.

    Returns whether the file was created. Raises OSError.
    """
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, FILE)  # the umask may have removed more
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return False
    finally:
        Path(draft).unlink()
    return True


def close_to_others(path: Path) -> None:
    """Set mode 0600 if every user of the machine may open the file, as after a usual umask.

    A mode that gives access only to a group was set on purpose, and stays. A file of another owner
    is not changed either. Does nothing if the file does not exist.
    """
    with suppress(FileNotFoundError, PermissionError):
        if stat.S_IMODE(path.stat().st_mode) & OTHERS:
            path.chmod(FILE)


def database_files(database: Path) -> tuple[Path, ...]:
    """Return every file that is kept with an SQLite database, whether or not it exists."""
    names = ("", "-wal", "-shm", "-journal", "-lock")
    beside = ("batch.lock", "callback-secret")
    return (
        *(Path(f"{database}{name}") for name in names),
        *(database.with_name(name) for name in beside),
    )
