"""Limits the number of connections of one process, and how long they wait for their clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from receiver.text import limits

SWEEP_INTERVAL = 0.5  # seconds between two checks for expired connections

Note = Callable[[str, str, str, str], None]
"""Records a rejected request: address, reason, method, path."""


class RequestLimits:
    """gunicorn's `limit_request_line`, `limit_request_fields` and `limit_request_field_size`.

    0 means that only the limit of the whole head applies, as it does in gunicorn.
    """

    def __init__(
        self,
        line: int = limits.MAX_REQUEST_LINE,
        fields: int = limits.MAX_HEADERS,
        field_size: int = limits.MAX_HEADER,
    ) -> None:
        self.line, self.fields = line or limits.MAX_HEAD, fields or limits.MAX_HEAD
        self.field_size = field_size or limits.MAX_HEAD


class ClosableConnection(Protocol):
    """The part of a connection that ConnectionSlots uses."""

    def expire(self) -> None:
        """Close the connection, because its client took too long."""
        ...

    def abort(self) -> None:
        """Close the connection immediately, in favour of a new one."""
        ...


class ConnectionSlots:
    """The connections of one process that wait for their clients, longest wait first."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, request_limits: RequestLimits, note: Note
    ) -> None:
        self.loop, self.request_limits, self.note = loop, request_limits, note
        self.waiting: dict[ClosableConnection, float] = {}  # deadlines, on the loop's clock
        # Those of `waiting` whose clients have not read their response, with the time since when.
        self.reading: dict[ClosableConnection, float] = {}
        self.held: dict[ClosableConnection, float] = {}  # deadlines; not closed for others
        # Connections whose responses are streams, for which there is a separate limit.
        self.streams: set[ClosableConnection] = set()
        self.is_stopping = False  # no deadline is later than CLOSE_TIMEOUT from now
        self._timer = loop.call_later(SWEEP_INTERVAL, self._sweep)

    def wait(self, connection: ClosableConnection, seconds: float) -> None:
        """Close the connection after `seconds`, unless `wait` or `release` is called before."""
        self.release(connection)
        self.waiting[connection] = self._deadline(seconds)

    def wait_for_reader(self, connection: ClosableConnection, seconds: float) -> None:
        """Like `wait`, for a client that has not read its response yet."""
        self.wait(connection, seconds)
        self.reading[connection] = self.loop.time()

    def hold(self, connection: ClosableConnection, seconds: float) -> None:
        """Like `wait`, but the connection is never closed in favour of a new one."""
        self.release(connection)
        self.held[connection] = self._deadline(seconds)

    def shorten(self, connection: ClosableConnection) -> None:
        """Limit the remaining time of a connection to CLOSE_TIMEOUT, for a shutdown."""
        for deadlines in (self.waiting, self.held):
            if connection in deadlines:
                latest = self._deadline(limits.CLOSE_TIMEOUT)
                deadlines[connection] = min(deadlines[connection], latest)

    def release(self, connection: ClosableConnection) -> None:
        """Stop waiting for the client of this connection."""
        self.waiting.pop(connection, None)
        self.reading.pop(connection, None)
        self.held.pop(connection, None)

    def close_longest_waiting(self) -> bool:
        """Close the connection whose client has not read for longest, or else has waited longest.

        Returns False if only one is waiting, because it may have just been accepted.
        """
        connection = next(iter(self.reading), None)
        if connection is None or self.loop.time() - self.reading[connection] < limits.STALL_TIMEOUT:
            if len(self.waiting) < 2:
                return False
            connection = next(iter(self.waiting))
        self.release(connection)
        connection.abort()
        return True

    def close(self) -> None:
        """Stop checking for expired connections."""
        self._timer.cancel()

    def _deadline(self, seconds: float) -> float:
        most = limits.CLOSE_TIMEOUT if self.is_stopping else seconds
        return self.loop.time() + min(seconds, most)

    def _sweep(self) -> None:
        # Schedule the next check first, in case of an exception.
        self._timer = self.loop.call_later(SWEEP_INTERVAL, self._sweep)
        now = self.loop.time()
        for connection, deadline in [*self.waiting.items(), *self.held.items()]:
            if deadline <= now:
                self.release(connection)
                connection.expire()
