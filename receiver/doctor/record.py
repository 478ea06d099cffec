"""Is the record there, in this release's schema, and can it be written? Who is at work on it?"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from receiver.clock import now_ms, wall_ms
from receiver.doctor.findings import Finding, failed, ok, warning
from receiver.errors import StoreError
from receiver.processes.clock_watch import recent_step
from receiver.stores import Store
from receiver.stores.sql.activity import GONE_AFTER
from receiver.stores.sql.metrics import FILES_CHANGED
from receiver.text.display import rfc3339

CHECK = "database"
CLOCK = "clock"
CLOCKS_APART = 2  # seconds
SYNCHRONISE = "synchronise every machine's clock: timedatectl set-ntp true"
# Kind of process: what it does, and how it is started.
EXPECTED = {
    "worker": ("nothing is delivered", "receiver worker"),
    "poller": ("callbacks that never come are not fetched", "submitter reconcile --forever"),
}


def check(store: Store) -> Iterator[Finding]:
    """The record. Nothing follows the first failure."""
    try:
        yield ok(CHECK, store.database.version())
        if pooler := store.database.pooler():
            yield warning(CHECK, *pooler)
        store.check_schema()
        yield ok(CHECK, "the schema is this release's")
        store.activity.heartbeat(f"{socket.gethostname()}:{os.getpid()}:doctor", "doctor", now_ms())
        yield ok(CHECK, "a write was committed")
        yield from changes(store)
        yield from processes(store, now_ms())
        yield from erasures(store)
        yield from clock_steps(store, now_ms())
    except StoreError as error:
        yield failed(CHECK, str(error))


def erasures(store: Store) -> Iterator[Finding]:
    """Report what was erased and is still in the database's files. Raises StoreUnavailable."""
    unfinished = store.erasures.unfinished()
    if unfinished is not None:
        said = (
            f"data erased since {rfc3339(unfinished.since)} is still in the database's files: "
            f"{unfinished.held_by}"
        )
        yield warning(
            "erasure", said, "end that reader; a worker finishes the erasure within seconds"
        )


def clock_steps(store: Store, now: int) -> Iterator[Finding]:
    """Report the clock that was set in the last day, and one that differs from the server's."""
    server = store.database.server_clock()
    apart = 0 if server is None else (wall_ms() - server) / 1000
    if abs(apart) >= CLOCKS_APART:
        which = "ahead of" if apart > 0 else "behind"
        off = f"this machine's clock is {abs(apart):.0f} s {which} the database server's"
        yield warning(CLOCK, f"{off}; signatures are checked with it", SYNCHRONISE)
    if step := recent_step(store, now):
        yield warning(CLOCK, f"{step.text} in the last day; schedules were corrected", SYNCHRONISE)


def changes(store: Store) -> Iterator[Finding]:
    """Whether another program changed the files of the database. Raises StoreUnavailable."""
    times = sum(one.value for one in store.metrics.counters() if one.name == FILES_CHANGED)
    if times:
        yield warning(
            CHECK,
            f"another program removed or replaced its files {times} time(s) while it was in use",
            "stop the receiver before you touch its files; the log says whether commits were lost",
        )


def processes(store: Store, now: int) -> Iterator[Finding]:
    """Who was seen. Raises StoreUnavailable."""
    due = store.metrics.backlog(now).due
    for kind, (lacking, command) in EXPECTED.items():
        seen_at = store.activity.last_seen(kind)
        if seen_at is not None and abs(now - seen_at) < GONE_AFTER:
            yield ok(kind, f"seen {max(now - seen_at, 0) / 1000:.0f} s ago")
            continue
        when = "in the last day" if seen_at is None else f"for {(now - seen_at) // 1000} s"
        if seen_at is not None and seen_at > now:
            when = "since the clock was set back"
        waits = f" ({due} deliveries wait)" if kind == "worker" and due else ""
        yield warning(
            kind, f"none was seen {when}: {lacking}{waits}", f"start receiver serve, or: {command}"
        )
