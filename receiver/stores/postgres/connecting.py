"""Opens connections to PostgreSQL, and interprets the errors.

Psycopg's error refers to the frame of `connect`, and the frame to the socket, which may therefore
stay open until the garbage collection. A server that is stopping waits a minute for each of them.
The classes here therefore remove the traceback.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from receiver.errors import StoreUnavailable, StoreUnreachable

CONNECTED_WITHIN = 5  # seconds
# Messages of PostgreSQL, its client library and PgBouncer if the server may accept us later.
NOT_YET = (
    "starting up",
    "shutting down",
    "recovery",
    "not yet accepting",
    "too many",
    "connection slots",
    "no more connections",
    "server login has been failing",
    "cannot connect to server",
    "query_wait_timeout",
    "is read-only",
    "standby",
)
# Messages of the client library if TLS or the password is configured wrongly.
NEVER = ("does not support SSL", "certificate", "no password supplied")


class Connection(psycopg.Connection[Any]):
    """Like psycopg's class, but its errors keep no socket open. Pools use it as well."""

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Connection:
        try:
            return super().connect(*args, **kwargs)
        except psycopg.Error as error:
            raise error.with_traceback(None) from None


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """Like psycopg's class, but its errors keep no socket open. Pools use it as well."""

    @classmethod
    async def connect(cls, *args: Any, **kwargs: Any) -> AsyncConnection:
        try:
            return await super().connect(*args, **kwargs)
        except (psycopg.Error, CancelledError) as error:
            raise error.with_traceback(None) from None


def connect(url: str) -> Connection:
    """Return a connection without prepared statements. Raises StoreUnavailable.

    Raises StoreUnreachable if the server does not accept connections yet.
    """
    try:
        return _connect(url)
    except psycopg.OperationalError as error:
        if not _is_refusal(url, error):
            raise StoreUnreachable(f"the database is unavailable: {first_line(error)}") from error
    try:
        return _connect(url)  # the server may have started between the error and the check
    except psycopg.OperationalError as error:
        if _contains_any(error, NOT_YET):
            raise StoreUnreachable(f"the database is unavailable: {first_line(error)}") from error
        raise StoreUnavailable(
            f"the database refuses the connection: {first_line(error)}; check DATABASE_URL"
        ) from error


def _connect(url: str) -> Connection:
    return Connection.connect(
        url, autocommit=True, prepare_threshold=None, connect_timeout=CONNECTED_WITHIN
    )


def _is_refusal(url: str, error: psycopg.OperationalError) -> bool:
    """Return whether a server is running and rejects these settings.

    Messages may be translated. `ping` succeeds even if the password or the database is wrong.
    """
    if _contains_any(error, NEVER):
        return True
    if _contains_any(error, NOT_YET):
        return False
    conninfo = make_conninfo(url, connect_timeout=CONNECTED_WITHIN)
    ping = pq.PGconn.ping(conninfo.encode())
    return ping not in (pq.Ping.NO_RESPONSE, pq.Ping.REJECT)


def _contains_any(error: Exception, parts: tuple[str, ...]) -> bool:
    return any(part in str(error) for part in parts)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
