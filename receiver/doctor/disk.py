"""Can the folder of the record take what is written, and does it reach the disk?"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from receiver.doctor.findings import Finding, failed, ok, warning

CHECK = "disk"
SCARCE, TOO_LITTLE = 1_000_000_000, 50_000_000  # bytes
SLOW = 0.1  # seconds for one sync: every batch of callbacks waits for one
MAKE_ROOM = "make room, then: receiver prune --older-than 30d"


def check(folder: Path) -> Iterator[Finding]:
    """The file system that this folder is on."""
    if not folder.is_dir():
        yield failed(CHECK, f"{folder} is not there", "run: receiver migrate")
        return
    yield _room(folder)
    yield _written(folder)


def _room(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    told = f"{free / 1e9:.1f} GB free in {folder}"
    if free < TOO_LITTLE:
        return failed(CHECK, told, MAKE_ROOM)
    return warning(CHECK, told, MAKE_ROOM) if free < SCARCE else ok(CHECK, told)


def _written(folder: Path) -> Finding:
    try:
        took = _sync(folder)
    except OSError as error:
        said = f"{folder} cannot be written: {error.strerror}"
        return failed(CHECK, said, "give its owner, or this user, the right to write; see: df, ls")
    told = f"{folder} is writable; a sync takes {took * 1000:.1f} ms"
    if took > SLOW:
        return warning(CHECK, told, "callbacks wait for one sync each batch: use a faster disk")
    return ok(CHECK, told)


def _sync(folder: Path) -> float:
    """Write a file durably, and remove it; the seconds that the sync took."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        file.write(b"x" * 4096)
        file.flush()
        began_at = time.monotonic()
        os.fsync(file.fileno())
        return time.monotonic() - began_at
