"""Can other users of this machine read the database or the callback secret?"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from receiver.config import private_files
from receiver.doctor.findings import Finding, ok, warning

CHECK = "permissions"
GROUP_AND_OTHERS = 0o077


def check(database: Path) -> Iterator[Finding]:
    """Warn about the directory of the database, and about each of our files in it."""
    folder = database.parent
    found = list(_files(database))
    if folder.is_dir() and (mode := _mode(folder)) & private_files.OTHERS:
        found.append(
            warning(
                CHECK,
                f"every user of this machine may open the directory {folder} (mode {mode:04o}); "
                "it existed before, so it was left unchanged",
                f"if it is only for the receiver: chmod 700 {folder}",
            )
        )
    if folder.is_dir() and not found:
        found.append(ok(CHECK, f"only the owner may read the database in {folder}"))
    yield from found


def _files(database: Path) -> Iterator[Finding]:
    for file in private_files.database_files(database):
        if not file.is_file():
            continue
        mode = _mode(file)
        if mode & GROUP_AND_OTHERS:
            who = "every user of this machine" if mode & private_files.OTHERS else "its group"
            said = f"{who} has access to {file} (mode {mode:04o})"
            yield warning(CHECK, said, f"unless that is intended: chmod 600 {file}")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
