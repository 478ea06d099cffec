"""Reports that this web process rejected the hooks file at the last SIGHUP."""

from __future__ import annotations

import os
import socket
import threading
from itertools import count

import structlog

from receiver.clock import now_ms
from receiver.errors import StoreUnavailable
from receiver.processes import current_hooks
from receiver.stores.base import Store

AGAIN_EVERY = 10.0  # seconds; see `stores.base.GONE_AFTER`
ROUNDS = 4  # of a withdrawal: the previous worker processes may report until they have drained
log = structlog.get_logger()


def install(store: Store) -> None:
    """Report for as long as this worker process is at work.

    The arbiter read the file, and starts other worker processes at the next SIGHUP. So they report
    in its name, and one whose hooks file is valid withdraws the report.
    """
    current = current_hooks.in_use()
    if current is None:
        return
    problem = current.problem
    name = f"{socket.gethostname()}:{os.getppid()}:web"

    def report() -> None:
        if problem is not None or any(
            one.name == name for one in store.activity.process_problems(0)
        ):
            store.activity.report_problem(name, "web", problem, now_ms())

    def repeat() -> None:
        pause = threading.Event()
        rounds = count() if problem is not None else range(ROUNDS)
        for _ in rounds:
            try:
                report()
            except StoreUnavailable as error:
                log.warning("the rejected hooks file is not reported", error=str(error))
            pause.wait(AGAIN_EVERY)

    threading.Thread(target=repeat, name="hooks report", daemon=True).start()
