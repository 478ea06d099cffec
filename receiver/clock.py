"""The three clocks. Only this module reads them, so that tests can replace the time.

The machine's clock (`wall_ms`) may be set at any time. The time since boot (`elapsed_ms`) never
jumps. The clock of the record (`now_ms`) is that of the database: with SQLite it is the machine's;
with PostgreSQL `clock_watch` makes it follow the server, so that all hosts agree.
"""

from __future__ import annotations

import time
import uuid
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Containers may have a time namespace of their own, in which the time since boot differs.
TIME_NAMESPACE = Path("/proc/self/ns/time")

_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # includes suspended time
_server_offset: int | None = None  # ms between `elapsed_ms` and the clock of the database server


def now_ms() -> int:
    """Return the time by the clock of the record, in integer milliseconds UTC."""
    if _server_offset is not None:
        return elapsed_ms() + _server_offset
    return time.time_ns() // 1_000_000


def wall_ms() -> int:
    """Return the time by this machine's clock, in integer milliseconds UTC."""
    return time.time_ns() // 1_000_000


def elapsed_ms() -> int:
    """Return the milliseconds since this machine booted, including the time it was suspended."""
    return time.clock_gettime_ns(_ELAPSED) // 1_000_000


def follow(offset: int | None) -> None:
    """Let `now_ms` return `elapsed_ms` plus this offset, or the machine's clock if it is None."""
    global _server_offset  # noqa: PLW0603 - one clock for the whole process
    _server_offset = offset


@cache
def boot_id() -> str:
    """Return an id of this boot of the machine, since which `elapsed_ms` counts.

    If the system has no such id, the id is valid for this process only.
    """
    try:
        boot = BOOT_ID.read_text().strip()
    except OSError:
        return f"process {uuid.uuid4()}"
    try:
        return f"{boot} {TIME_NAMESPACE.readlink()}"
    except OSError:  # a kernel without time namespaces
        return boot
