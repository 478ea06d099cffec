"""Shifts the clock of this process by the seconds in the file STEPPED_CLOCK, for the accounting.

Python imports this module when it starts if its folder is on PYTHONPATH. The file is read again
every CHECK_EVERY seconds. As with a real step of the system clock, the monotonic clock does not
change.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

CHECK_EVERY = 0.05  # seconds
_time, _time_ns, _monotonic = time.time, time.time_ns, time.monotonic
_file = Path(os.environ.get("STEPPED_CLOCK", "/nonexistent"))
_state = {"checked_at": 0.0, "step": 0}


def _step() -> int:
    """Return the step in seconds."""
    now = _monotonic()
    if now - _state["checked_at"] > CHECK_EVERY:
        try:
            _state["step"] = int(_file.read_text())
        except (OSError, ValueError):
            _state["step"] = 0
        _state["checked_at"] = now
    return int(_state["step"])


time.time = lambda: _time() + _step()
time.time_ns = lambda: _time_ns() + _step() * 1_000_000_000
