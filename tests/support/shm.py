"""The folder in which the tests may keep their files in memory.

Most tests write a SQLite database and wait for each sync of the disk. Durability is tested by
killing processes and by checking the order of system calls, which are the same in memory.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own in it
ENOUGH = 4 * 2**30  # bytes; a run needs about a quarter of it


def folder(path: Path = FOLDER) -> str | None:
    """Return the folder if it exists, has enough space, and allows programs to be executed."""
    if not (path.is_dir() and os.access(path, os.W_OK)):
        return None
    found = os.statvfs(path)
    has_room = found.f_bavail * found.f_frsize >= ENOUGH
    return str(path) if has_room and not found.f_flag & os.ST_NOEXEC else None
