"""Waits for the database when a process starts. Commands do not wait: they report the error."""

from __future__ import annotations

import time

import structlog

from receiver.errors import StoreUnreachable
from receiver.stores.base import Store

RETRY_EVERY = 3.0  # seconds

log = structlog.get_logger()


def check_schema_when_reachable(store: Store) -> None:
    """Check the schema as soon as the database server accepts connections.

    Every attempt that fails is logged. A signal ends the process meanwhile. Raises SchemaMismatch.
    Raises StoreUnavailable if waiting cannot help, for example because a password is wrong, or
    because the database is a file.
    """
    started_at = time.monotonic()
    while True:
        try:
            store.check_schema()
            break
        except StoreUnreachable as error:
            log.warning(
                "waiting for the database",
                error=str(error),
                waited_s=round(time.monotonic() - started_at),
                retry_after_s=RETRY_EVERY,
            )
        time.sleep(RETRY_EVERY)
    if found := store.pooler():
        log.warning("a pooler limits the database", problem=found[0], remedy=found[1])
