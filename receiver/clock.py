"""The only place that reads the clock; everything else is handed the time."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Now, in integer milliseconds UTC."""
    return time.time_ns() // 1_000_000
