"""The user that runs the servers of the tests: `nobody` where the tests run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

UNPRIVILEGED = "nobody"


class ProcessUser(TypedDict, total=False):
    """The arguments of `subprocess` that select the user of a process."""

    user: int
    group: int
    extra_groups: Sequence[int]


def process_user() -> ProcessUser:
    """Return the arguments of `subprocess` for a server: none unless this process is root's."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(UNPRIVILEGED)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": ()}


def give(path: Path) -> None:
    """Make the server's user the owner of a path; the target of a symbolic link is unchanged."""
    if os.geteuid() == 0 and not path.is_symlink():
        os.chown(path, pwd.getpwnam(UNPRIVILEGED).pw_uid, -1)


def can_read(folder: Path) -> bool:
    """Return whether the server's user reaches this folder, which depends on all its parents."""
    return subprocess.run(["test", "-r", folder], check=False, **process_user()).returncode == 0  # noqa: S607


def readable(folder: Path, copy: Path) -> Path:
    """Return the folder if the server's user reaches it, else the copy, which is made here."""
    if can_read(folder):
        return folder
    shutil.copytree(folder, copy, symlinks=True, copy_function=_link_or_copy)
    return copy


def _link_or_copy(source: str, target: str) -> None:
    with suppress(OSError):  # another file system, or a kernel that protects hard links
        os.link(source, target, follow_symlinks=False)
        return
    shutil.copy2(source, target, follow_symlinks=False)
