"""Waits for the database when a process starts. Other commands report the error instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from receiver.errors import StoreUnreachable
from receiver.stores.base import Store

T = TypeVar("T")
RETRY_EVERY = 3.0  # seconds

log = structlog.get_logger()


def check_schema_when_reachable(store: Store) -> None:
    """Check the schema as soon as the database server accepts connections.

    Raises SchemaMismatch; otherwise as `when_reachable`.
    """
    when_reachable(store.check_schema)
    if found := store.pooler():
        log.warning("a pooler limits the database", problem=found[0], remedy=found[1])


def when_reachable(work: Callable[[], T]) -> T:
    """Return what the work returns as soon as the database server accepts connections.

    Every attempt that fails is logged. A signal ends the process meanwhile. Raises StoreUnavailable
    if waiting cannot help, for example because a password is wrong, or the database is a file.
    """
    started_at = time.monotonic()
    while True:
        try:
            return work()
        except StoreUnreachable as error:
            log.warning(
                "waiting for the database",
                error=str(error),
                waited_s=round(time.monotonic() - started_at),
                retry_after_s=RETRY_EVERY,
            )
        time.sleep(RETRY_EVERY)
