"""Runs one of our commands with a clock that a test sets, and with short retries.

`python -m tests.support.apps.settable_clock receiver worker` runs `receiver worker`. The file CLOCK
contains the number of seconds by which the clock is wrong, such as -3600; the time since boot is
the real one.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path

from receiver.outgoing.retry import RetryPolicy

real_time, real_time_ns = time.time, time.time_ns
offset = Path(os.environ["CLOCK"])


def set_by() -> int:
    return int(offset.read_text() or "0")


time.time = lambda: real_time() + set_by()
time.time_ns = lambda: real_time_ns() + set_by() * 1_000_000_000
RetryPolicy.__init__.__defaults__ = ((2.0,) * 100, 0.0)  # delays and jitter
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
