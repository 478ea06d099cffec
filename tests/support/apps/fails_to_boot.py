"""The web process of which some workers cannot start: as many as FAILURES (a file) has bytes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.apps.unhurried import app

__all__ = ["app"]

failures = Path(os.environ["FAILURES"])
left = len(failures.read_bytes())
if left:
    failures.write_bytes(b"x" * (left - 1))
    raise RuntimeError("this worker cannot start")
