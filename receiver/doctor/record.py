"""Checks the database: its schema, a write, the processes that use it, and their clocks."""

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
from receiver.text.display import counted, rfc3339

CHECK = "database"
CLOCK = "clock"
CLOCKS_APART = 2  # seconds
SYNCHRONISE = "synchronise every machine's clock: timedatectl set-ntp true"
# By kind of process: the consequence if none runs, and the command that starts it.
EXPECTED = {
    "worker": ("nothing is delivered", "receiver worker"),
    "poller": ("the results of missing callbacks are not fetched", "submitter reconcile --forever"),
}


def check(store: Store) -> Iterator[Finding]:
    """Check the database; stop at the first failure."""
    try:
        yield ok(CHECK, store.database.version())
        if pooler := store.database.pooler():
            yield warning(CHECK, *pooler)
        store.check_schema()
        yield ok(CHECK, "the schema is that of this release")
        store.activity.heartbeat(f"{socket.gethostname()}:{os.getpid()}:doctor", "doctor", now_ms())
        yield ok(CHECK, "a write was committed")
        yield from changes(store)
        yield from processes(store, now_ms())
        yield from erasures(store)
        yield from clock_steps(store, now_ms())
    except StoreError as error:
        yield failed(CHECK, str(error))


def erasures(store: Store) -> Iterator[Finding]:
    """Report erased data that is still in the database's files. Raises StoreUnavailable."""
    unfinished = store.erasures.unfinished()
    if unfinished is not None:
        yield warning(
            "erasure",
            f"data erased since {rfc3339(unfinished.since)} is still in the database's files: "
            f"{unfinished.held_by}",
            "end that reader; then a worker finishes the erasure within seconds",
        )


def clock_steps(store: Store, now: int) -> Iterator[Finding]:
    """Report a clock that was set in the last day, or that differs from the server's."""
    server = store.database.server_clock()
    apart = 0 if server is None else (wall_ms() - server) / 1000
    if abs(apart) >= CLOCKS_APART:
        direction = "ahead of" if apart > 0 else "behind"
        yield warning(
            CLOCK,
            f"this machine's clock is {abs(apart):.0f} s {direction} the database server's; "
            "signatures are checked with it",
            SYNCHRONISE,
        )
    if step := recent_step(store, now):
        yield warning(CLOCK, f"{step.text} in the last day; schedules were corrected", SYNCHRONISE)


def changes(store: Store) -> Iterator[Finding]:
    """Report that another program changed the database's files. Raises StoreUnavailable."""
    times = sum(count.value for count in store.metrics.counters() if count.name == FILES_CHANGED)
    if times:
        yield warning(
            CHECK,
            f"another program removed or replaced its files {counted(times, 'time')} while it was "
            "in use",
            "stop the receiver before you change its files; the log says whether commits were lost",
        )


def processes(store: Store, now: int) -> Iterator[Finding]:
    """Report when each kind of process was last seen. Raises StoreUnavailable."""
    due = store.metrics.backlog(now).due
    for kind, (consequence, command) in EXPECTED.items():
        seen_at = store.activity.last_seen(kind)
        if seen_at is not None and abs(now - seen_at) < GONE_AFTER:
            yield ok(kind, f"seen {max(now - seen_at, 0) / 1000:.0f} s ago")
            continue
        when = "in the last day" if seen_at is None else f"for {(now - seen_at) // 1000} s"
        if seen_at is not None and seen_at > now:
            when = "since the clock was set back"
        waits = "delivery waits" if due == 1 else "deliveries wait"
        waiting = f" ({due} {waits})" if kind == "worker" and due else ""
        todo = f"start receiver serve, or: {command}"
        yield warning(kind, f"none was seen {when}: {consequence}{waiting}", todo)
