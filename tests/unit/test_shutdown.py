"""A signal stops a process at any time."""

from __future__ import annotations

import subprocess
import sys

from tests.support.patience import PATIENCE

# The handler runs while the main thread is within `stop.wait()` and holds the lock of the event.
PROGRAM = f"""
import os, signal
from receiver.processes.shutdown import stop_at
stop = stop_at(signal.SIGTERM)
with stop._cond:
    os.kill(os.getpid(), signal.SIGTERM)
assert stop.wait({PATIENCE})
"""


def test_a_signal_during_wait_stops_the_process() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], timeout=PATIENCE, check=True)


# The first SIGHUP arrives before the handler is installed, the second after a reload that failed.
RELOADS = f"""
import os, queue, signal, threading
from receiver.processes.shutdown import reload_at_hangup
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGHUP}})  # as `receiver serve` does
os.kill(os.getpid(), signal.SIGHUP)
called, stop = queue.SimpleQueue(), threading.Event()
def reload():
    called.put(None)
    raise ZeroDivisionError
reload_at_hangup(reload, stop)
called.get(timeout={PATIENCE})
os.kill(os.getpid(), signal.SIGHUP)
called.get(timeout={PATIENCE})
assert not stop.is_set()
"""


def test_each_hangup_reloads_even_after_a_failed_reload() -> None:
    command = [sys.executable, "-c", RELOADS]
    subprocess.run(command, timeout=PATIENCE, check=True, start_new_session=True)
