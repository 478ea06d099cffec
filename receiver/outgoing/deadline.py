"""A total deadline for network operations, however slowly the peer sends.

A socket's timeout starts again with every read, and a name lookup has no timeout at all.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Self, TypeVar

T = TypeVar("T")


class Deadline:
    """`with Deadline(10) as deadline:` limits everything in the block to 10 seconds in total.

    After that, every connection made by `connect` is shut down, so that a read from it returns an
    error or the end of the stream. Check `passed` before you rely on the data.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends_at = time.monotonic() + seconds
        self._over = False
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._shut_down)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            for copy in self._watched:
                copy.close()
            self._watched.clear()

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._ends_at

    def remaining(self) -> float:
        """Return the seconds left; never 0, which would make a socket non-blocking."""
        return max(self._ends_at - time.monotonic(), 0.001)

    def connect(self, host: str, port: int) -> socket.socket:
        """Return a TCP connection that is shut down at the deadline.

        Raises OSError, or ValueError for an invalid name.
        """
        return self.run(
            lambda: self._watch(socket.create_connection((host, port), self.remaining())),
            socket.socket.close,
        )

    def run(self, work: Callable[[], T], discard: Callable[[T], object] = lambda _: None) -> T:
        """Return the result of `work`, or raise its exception; raise TimeoutError at the deadline.

        For calls that cannot be interrupted: `work` runs in a thread, which is left behind at the
        deadline. A result that arrives later is passed to `discard`.
        """
        if self.passed:
            raise TimeoutError
        result: Future[T] = Future()

        def run() -> None:
            try:
                value = work()
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                with contextlib.suppress(InvalidStateError):  # the deadline has passed
                    result.set_exception(error)
                return
            try:
                result.set_result(value)
            except InvalidStateError:  # the deadline has passed
                discard(value)

        threading.Thread(target=run, daemon=True).start()
        try:
            return result.result(self.remaining())
        except TimeoutError:
            if result.cancel():
                raise
            return result.result()  # `work` has ended, perhaps with a TimeoutError of its own

    def _watch(self, connection: socket.socket) -> socket.socket:
        # A copy of the descriptor, because TLS detaches the socket object.
        with self._lock:
            if not (self._over or self.passed):
                self._watched.append(connection.dup())
                return connection
        connection.close()
        raise TimeoutError

    def _shut_down(self) -> None:
        with self._lock:
            for copy in self._watched:
                with contextlib.suppress(OSError):  # the connection is already closed
                    copy.shutdown(socket.SHUT_RDWR)
