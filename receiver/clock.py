"""The only place that reads the clock; everything else is handed the time.

Three clocks exist. The machine's (`wall_ms`) may be set at any time. The time since boot
(`elapsed_ms`) never jumps. The record's (`now_ms`) is the clock of the database: with SQLite it is
the machine's; with PostgreSQL `clock_watch` makes it follow the server, so that all hosts agree.
"""

from __future__ import annotations

import time
import uuid
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Containers may have a time namespace of their own, in which the time since boot differs.
TIME_NAMESPACE = Path("/proc/self/ns/time")

_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # includes a suspended machine
_following: int | None = None  # ms between `elapsed_ms` and the clock of the database server


def now_ms() -> int:
    """Now by the record's clock, in integer milliseconds UTC."""
    return time.time_ns() // 1_000_000 if _following is None else elapsed_ms() + _following


def wall_ms() -> int:
    """Now by this machine's clock, in integer milliseconds UTC."""
    return time.time_ns() // 1_000_000


def elapsed_ms() -> int:
    """Milliseconds since this machine booted, including the time it was suspended."""
    return time.clock_gettime_ns(_ELAPSED) // 1_000_000


def follow(offset: int | None) -> None:
    """Let `now_ms` return `elapsed_ms` plus this; None: the machine's clock."""
    global _following  # noqa: PLW0603 - one clock for the whole process
    _following = offset


@cache
def boot_id() -> str:
    """Return an id of this boot of the machine, from whose beginning `elapsed_ms` counts.

    Where the system has no such id, this process has one of its own.
    """
    try:
        boot = BOOT_ID.read_text().strip()
    except OSError:
        return f"process {uuid.uuid4()}"
    try:
        return f"{boot} {TIME_NAMESPACE.readlink()}"
    except OSError:  # a kernel without time namespaces
        return boot
