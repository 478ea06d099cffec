"""Reports progress on standard error; standard output is the report."""

from __future__ import annotations

import sys
import time

_began = time.monotonic()


def say(what: str) -> None:
    print(f"{time.monotonic() - _began:6.0f} s  {what}", file=sys.stderr, flush=True)


def elapsed() -> float:
    """Return the seconds since the bench started."""
    return time.monotonic() - _began
