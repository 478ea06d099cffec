"""Describes the machine of the measurement, without which the figures are meaningless."""

from __future__ import annotations

import os
import platform
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

OURS = ("flask", "gunicorn", "psycopg")


def described(place: Path) -> dict[str, str]:
    """Return the name and value of each fact about the machine."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": _file_system(place),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in OURS},
        "load before the start": f"{load} (1, 5, 15 minutes)",
    }


def _field(file: str, name: str) -> str:
    with suppress(OSError):
        for line in Path(file).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def _file_system(place: Path) -> str:
    """Return the type of the file system that contains the path."""
    found = ("", "unknown")
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, where, kind, *_ = line.split()
            if place.is_relative_to(where) and len(where) >= len(found[0]):
                found = (where, kind)
    return found[1]
