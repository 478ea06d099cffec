"""The web process, some of whose workers fail to start: one for each byte of the file FAILURES."""

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
