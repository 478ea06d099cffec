"""Finds the SQLite files that this process has open (on Linux; none elsewhere)."""

from __future__ import annotations

from pathlib import Path

from tests.support.patience import wait_until

DESCRIPTORS = Path("/proc/self/fd")
ENDINGS = (".db", ".db-wal", ".db-shm")


def open_databases() -> set[tuple[str, str]]:
    """Return the number of each descriptor, and its file."""
    found = set()
    for descriptor in DESCRIPTORS.iterdir() if DESCRIPTORS.is_dir() else ():
        try:
            file = str(descriptor.readlink()).removesuffix(" (deleted)")
        except OSError:  # it has been closed since
            continue
        if file.endswith(ENDINGS):
            found.add((descriptor.name, file))
    return found


def assert_closed_but(before: set[tuple[str, str]]) -> None:
    """Fail if other files stay open, after waiting for ending threads to close theirs."""
    wait_until(
        lambda: open_databases() <= before,
        lambda: f"left open: {sorted(open_databases() - before)}",
    )
