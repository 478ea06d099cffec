"""Handles a gunicorn worker that cannot boot: others continue, and it is replaced after a delay.

gunicorn stops completely when a worker cannot boot. That is right at the start, if no worker can
boot. Later, however, it would end a working service, for example because the database was
unavailable while one worker was replaced. A worker that cannot boot therefore waits, and then exits
with a status after which the arbiter starts another one.
"""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Callable

import structlog

SLOTS = 256  # at least the number of workers; a worker uses the slot of its age
FAILED = 1
SETTINGS = "receiver.web.server.gunicorn"  # the module, which `--config` imports
UNDECIDED_FOR = 30.0  # seconds; less than gunicorn's timeout
DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds before another worker is started


class BootRecord:
    """Records which workers have booted, in memory that the arbiter shares with all of them."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOTS + 1)  # the last byte: whether any has booted

    def booted(self) -> None:
        """Record that a worker has booted."""
        self._memory[:] = bytes(SLOTS) + b"\1"

    def failed(self, age: int) -> None:
        """Record that the worker of this age could not boot."""
        self._memory[age % SLOTS] = FAILED

    @property
    def any_booted(self) -> bool:
        """Whether a worker has ever booted."""
        return bool(self._memory[SLOTS])

    def is_first_failure(self, age: int) -> bool:
        """Return whether this is the first failure, by slot, since a worker last booted."""
        return self._memory[:SLOTS].find(FAILED) == age % SLOTS

    @property
    def failures(self) -> int:
        """The number of workers that could not boot since one last did."""
        return self._memory[:SLOTS].count(FAILED)

    def delay(self) -> float:
        """Return the seconds to wait before a worker that could not boot is replaced."""
        return DELAYS[min(max(self.failures, 1), len(DELAYS)) - 1]


def must_stop_everything(
    boots: BootRecord, workers: int, pause: Callable[[float], object] = time.sleep
) -> bool:
    """Wait until it is known whether any worker can boot; return True if none can.

    Called by a worker that cannot boot, while the others may still be starting.
    """
    waited = 0.0
    while not boots.any_booted and boots.failures < workers and waited < UNDECIDED_FOR:
        pause(0.1)
        waited += 0.1
    return not boots.any_booted


def report_missing_settings() -> None:
    """Log a warning in the first worker of a gunicorn that does not use our settings."""
    arbiter = sys.modules.get("gunicorn.arbiter")
    is_first = arbiter is not None and not arbiter.Arbiter.WORKERS  # the arbiter's, at the fork
    if is_first and SETTINGS not in sys.modules:
        structlog.get_logger().warning(
            "gunicorn runs without the settings of this project, and so without its limits and its"
            " worker class; start it with --config python:receiver.web.gunicorn"
        )


boots = BootRecord()
