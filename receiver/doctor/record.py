"""Is the record there, in this release's schema, and can it be written? Who is at work on it?"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from receiver.clock import now_ms
from receiver.doctor.findings import Finding, failed, ok, warning
from receiver.errors import StoreError
from receiver.stores import Store
from receiver.stores.base import FILES_CHANGED

CHECK = "database"
SILENT_AFTER = 60_000  # ms; those who are at work show it every 10 s
# Kind of process: what it does, and how it is started.
EXPECTED = {
    "worker": ("nothing is delivered", "receiver worker"),
    "poller": ("callbacks that never come are not fetched", "submitter reconcile --forever"),
}


def check(store: Store) -> Iterator[Finding]:
    """The record. Nothing follows the first failure."""
    try:
        yield ok(CHECK, store.engine())
        store.check_schema()
        yield ok(CHECK, "the schema is this release's")
        store.heartbeat(f"{socket.gethostname()}:{os.getpid()}:doctor", "doctor", now_ms())
        yield ok(CHECK, "a write was committed")
        yield from changes(store)
        yield from processes(store, now_ms())
    except StoreError as error:
        yield failed(CHECK, str(error))


def changes(store: Store) -> Iterator[Finding]:
    """Whether another program changed the files of the database. Raises StoreUnavailable."""
    times = sum(one.value for one in store.counters() if one.name == FILES_CHANGED)
    if times:
        yield warning(
            CHECK,
            f"another program removed or replaced its files {times} time(s) while it was in use",
            "stop the receiver before you touch its files; the log says whether commits were lost",
        )


def processes(store: Store, now: int) -> Iterator[Finding]:
    """Who was seen. Raises StoreUnavailable."""
    due = store.backlog(now).due
    for kind, (lacking, command) in EXPECTED.items():
        seen_at = store.seen(kind)
        if seen_at is not None and now - seen_at < SILENT_AFTER:
            yield ok(kind, f"seen {max(now - seen_at, 0) / 1000:.0f} s ago")
            continue
        when = "in the last day" if seen_at is None else f"for {(now - seen_at) // 1000} s"
        waits = f" ({due} deliveries wait)" if kind == "worker" and due else ""
        yield warning(
            kind, f"none was seen {when}: {lacking}{waits}", f"start receiver serve, or: {command}"
        )
