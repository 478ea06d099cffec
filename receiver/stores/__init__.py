"""Opens the store that a DATABASE_URL names, and waits until it is available."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from receiver.config.settings import sqlite_path
from receiver.config.values import is_postgres
from receiver.errors import SettingsError, StoreUnreachable
from receiver.observability.logger import Logger
from receiver.stores.base import Store
from receiver.stores.sqlite import SqliteStore

T = TypeVar("T")
RETRY_EVERY = 3.0  # seconds
INSTALL = (
    "PostgreSQL needs: pip install 'procrastinate>=3.10' 'psycopg[binary]>=3.3' 'psycopg-pool>=3.3'"
)
log = Logger()


def open_store(database_url: str) -> Store:
    """Return the store for this URL, without connecting to it.

    Raises SettingsError if the packages for PostgreSQL are not installed.
    """
    if not is_postgres(database_url):
        return SqliteStore(sqlite_path(database_url))
    try:
        from receiver.stores.postgres import PostgresStore  # noqa: PLC0415 - an extra
    except ImportError:
        raise SettingsError([INSTALL]) from None
    return PostgresStore(database_url)


def check_schema_when_reachable(store: Store) -> None:
    """Check the schema as soon as the database server accepts connections.

    Raises SchemaMismatch; otherwise as `when_reachable`.
    """
    when_reachable(store.check_schema)
    if limits := store.database.pooler():
        problem, remedy = limits
        log.warning("a pooler limits the database", problem=problem, remedy=remedy)


def when_reachable(work: Callable[[], T]) -> T:
    """Call `work` until the database server accepts connections, and return its result.

    Logs every failed attempt. A signal can end the process while it waits. Raises StoreUnavailable
    if waiting cannot help, for example because the password is wrong or the database is a file.
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


__all__ = ["Store", "check_schema_when_reachable", "open_store", "when_reachable"]
