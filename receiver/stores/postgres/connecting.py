"""Connections to PostgreSQL that leave no socket behind when they could not be made.

Psycopg's error holds the frame of `connect`, and that the socket, until whoever caught it is gone,
or even until garbage is collected. A server that is stopping waits a minute for each of them.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import Any

import psycopg

CONNECTED_WITHIN = 5  # seconds


class Connection(psycopg.Connection[Any]):
    """As psycopg's; also what a pool makes."""

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Connection:
        try:
            return super().connect(*args, **kwargs)
        except psycopg.Error as error:
            raise error.with_traceback(None) from None


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """As psycopg's; also what a pool makes."""

    @classmethod
    async def connect(cls, *args: Any, **kwargs: Any) -> AsyncConnection:
        try:
            return await super().connect(*args, **kwargs)
        except (psycopg.Error, CancelledError) as error:
            raise error.with_traceback(None) from None
