"""Runs one of our commands with short leases and retries.

`python -m tests.support.apps.short_leases receiver worker` runs `receiver worker`. If POISON is the
id of a task, the Slack hook kills the process when it sends a message about that task. LEASE sets
the length of leases in seconds: on a busy machine, a short lease can expire while its worker is
alive.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from receiver.deliveries import Notice
from receiver.delivery import attempt, hook_tests, worker_slots
from receiver.hooks.base import Done
from receiver.hooks.slack import Slack
from receiver.outgoing.retry import RetryPolicy
from submitter import reconcile

lease = float(os.environ.get("LEASE", "1.5"))
attempt.LEASE = round(1000 * lease)
attempt.UPKEEP_EVERY = 0.3
worker_slots.WATCHED_FOR = 600.0  # seconds; on a busy machine attempts take long
hook_tests.LEASE = 1_500  # ms
if os.environ["DATABASE_URL"].startswith("postgresql"):
    from receiver.delivery import procrastinate

    procrastinate.EVERY, procrastinate.STALLED_AFTER = "* * * * * *", lease + 0.5  # each second
    procrastinate.BEATS_EVERY, procrastinate.FETCH_EVERY = 0.5, 0.1
reconcile.LEASE_MS = 5_000  # ms
most = int(os.environ.get("ATTEMPTS", "100"))
RetryPolicy.__init__.__defaults__ = ((0.3,) * (most - 1), 0.9)  # delays and jitter
send = Slack.send


def poisoned(self: Slack, notice: Notice) -> Done:
    if notice.task.id == os.environ.get("POISON"):
        os.kill(os.getpid(), signal.SIGKILL)
    return send(self, notice)


Slack.send = poisoned  # type: ignore[method-assign]
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
