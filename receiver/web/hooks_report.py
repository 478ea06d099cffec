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

INTERVAL = 10.0  # seconds between two reports; see `stores.sql.activity.GONE_AFTER`
# A valid file is reported several times: previous processes may still report their problem.
ROUNDS = 4
log = structlog.get_logger()


def install(store: Store) -> None:
    """Report regularly, on a background thread, until this worker process ends.

    The arbiter has read the file, and starts new worker processes at the next SIGHUP. The worker
    processes therefore report on its behalf, and those with a valid hooks file withdraw the report.
    """
    current = current_hooks.in_use()
    if current is None:
        return
    problem = current.problem
    name = f"{socket.gethostname()}:{os.getppid()}:web"

    def repeat() -> None:
        pause = threading.Event()
        rounds = count() if problem is not None else range(ROUNDS)
        for _ in rounds:
            try:
                reported = {process.name for process in store.activity.process_problems(0)}
                if problem is not None or name in reported:
                    store.activity.report_problem(name, "web", problem, now_ms())
            except StoreUnavailable as error:
                log.warning("could not report the state of the hooks file", error=str(error))
            pause.wait(INTERVAL)

    threading.Thread(target=repeat, name="hooks report", daemon=True).start()
