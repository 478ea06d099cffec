"""A signal stops a process whenever it comes."""

from __future__ import annotations

import subprocess
import sys

from tests.support.patience import PATIENCE

# The handler runs while the main thread is within `stop.wait()`, where it holds the event's lock.
PROGRAM = f"""
import os, signal
from receiver.stop import stop_at
stop = stop_at(signal.SIGTERM)
with stop._cond:
    os.kill(os.getpid(), signal.SIGTERM)
assert stop.wait({PATIENCE})
"""


def test_a_signal_at_the_worst_moment_stops_it() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], timeout=PATIENCE, check=True)
