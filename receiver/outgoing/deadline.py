"""A total deadline for talking over sockets: time is up on time, however the other side drips.

A socket's timeout counts anew with every read, and looking up a name has none at all.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Deadline:
    """`with Deadline(10) as deadline:` gives everything in it 10 seconds, together.

    When they have passed, every connection made by `connect` is shut down, so that whoever reads
    from it sees an error or the end of the stream: ask `passed` before believing either.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            for copy in self._watched:
                copy.close()
            self._watched.clear()

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._ends_at

    def remaining(self) -> float:
        """Seconds left, never quite 0, which would mean "do not block" to a socket."""
        return max(self._ends_at - time.monotonic(), 0.001)

    def connect(self, host: str, port: int) -> socket.socket:
        """A TCP connection that dies at the deadline. Raises OSError, or ValueError for a name."""
        return self.run(
            lambda: self._watch(socket.create_connection((host, port), self._left())),
            socket.socket.close,
        )

    def run(self, work: Callable[[], T], discard: Callable[[T], object] = id) -> T:
        """What `work` returns or raises (OSError, ValueError); TimeoutError if it takes too long.

        For calls that nothing can interrupt: they go on in a thread that nobody waits for, and
        `discard` is given what comes of them too late.
        """
        job = _Job(work, discard)
        threading.Thread(target=job.run, daemon=True).start()
        return job.result(self._left())

    def _left(self) -> float:
        if self.passed:
            raise TimeoutError
        return self.remaining()

    def _watch(self, connection: socket.socket) -> socket.socket:
        # A copy of the descriptor, because TLS takes the socket object itself away from us.
        with self._lock:
            if not (self._over or self.passed):
                self._watched.append(connection.dup())
                return connection
        connection.close()
        raise TimeoutError

    def _shut_down(self) -> None:
        with self._lock:
            for copy in self._watched:
                with contextlib.suppress(OSError):  # the other side was faster
                    copy.shutdown(socket.SHUT_RDWR)


class _Job(Generic[T]):
    """One call in a thread of its own, and what came of it."""

    def __init__(self, work: Callable[[], T], discard: Callable[[T], object]) -> None:
        self._work = work
        self._discard = discard
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._is_given_up = False
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._keep(self._work())
        except (OSError, ValueError) as error:
            self._error = error
        finally:
            self._ended.set()

    def _keep(self, result: T) -> None:
        with self._lock:
            if not self._is_given_up:
                self._results.append(result)
                return
        self._discard(result)

    def result(self, timeout: float) -> T:
        self._ended.wait(timeout)
        with self._lock:
            self._is_given_up = not self._ended.is_set()
        if self._is_given_up:
            for late in self._results:  # it came between the two lines above
                self._discard(late)
            raise TimeoutError
        if self._results:
            return self._results[0]
        raise self._error or RuntimeError("the thread ended without a result")
