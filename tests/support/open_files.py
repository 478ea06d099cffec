"""Which SQLite files this process has open; on Linux, elsewhere none are found."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.patience import PATIENCE, POLLED_EVERY

DESCRIPTORS = Path("/proc/self/fd")
ENDINGS = (".db", ".db-wal", ".db-shm")
CLOSED_WITHIN = PATIENCE / 4  # seconds; pytest-timeout would end a test that waited for PATIENCE


def open_databases() -> set[tuple[str, str]]:
    """The number of each descriptor, and the file that it is of."""
    found = set()
    for descriptor in DESCRIPTORS.iterdir() if DESCRIPTORS.is_dir() else ():
        try:
            file = str(descriptor.readlink()).removesuffix(" (deleted)")
        except OSError:  # it was closed meanwhile
            continue
        if file.endswith(ENDINGS):
            found.add((descriptor.name, file))
    return found


def assert_closed_but(before: set[tuple[str, str]]) -> None:
    """Fail if files other than these stay open: a thread that ends may be closing one now."""
    ends_at = time.monotonic() + CLOSED_WITHIN
    while left := open_databases() - before:
        assert time.monotonic() < ends_at, f"left open: {sorted(left)}"
        time.sleep(POLLED_EVERY)
