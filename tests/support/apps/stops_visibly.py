"""Runs one of our commands, and prints a line when it begins to stop.

`python -m tests.support.apps.stops_visibly receiver worker` runs `receiver worker`. A worker on
PostgreSQL takes no more jobs once Procrastinate has printed "Stop requested" for each of its two
queues. All other processes accept nothing more once STOPPING is printed.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys
import threading

from receiver.processes import shutdown

STOPPING = "the process was told to stop"
stop_at = shutdown.stop_at


def stop_visibly_at(*numbers: int) -> threading.Event:
    event = stop_at(*numbers)

    def report() -> None:
        event.wait()
        print(STOPPING, file=sys.stderr, flush=True)

    threading.Thread(target=report, daemon=True).start()
    return event


shutdown.stop_at = stop_visibly_at
if os.environ["DATABASE_URL"].startswith("postgresql"):
    import receiver.delivery.procrastinate  # noqa: F401 - it sets the level of this logger, too

    queue_logger = logging.getLogger("procrastinate")
    queue_logger.setLevel(logging.INFO)
    queue_logger.addHandler(logging.StreamHandler())
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
