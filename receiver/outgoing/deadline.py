"""A total deadline for network operations, however slowly the peer sends.

A socket's timeout starts again with every read, and a name lookup has no timeout at all.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Self, TypeVar

T = TypeVar("T")
MAX_RUNNING = 64  # calls of one process that cannot be interrupted, such as name lookups

log = logging.getLogger(__name__)


class Watchdog:
    """Calls functions at given times, in one thread, which ends when no call is left.

    The functions must not block.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start without calls and without a thread, as a forked process must."""
        self._changed = threading.Condition(threading.Lock())
        self._calls: dict[object, tuple[float, Callable[[], object]]] = {}
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf

    def call_at(self, owner: object, at: float, function: Callable[[], object]) -> None:
        """Call the function at a time of the monotonic clock; replaces the owner's last call."""
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                thread.start()
                self._thread = thread
            elif at < self._wakes_at:
                self._changed.notify_all()
            self._calls[owner] = (at, function)

    def cancel(self, owner: object) -> None:
        """Cancel the owner's call. Its function may be running already."""
        with self._changed:
            self._calls.pop(owner, None)
            if not self._calls:
                self._thread = None
                self._changed.notify_all()

    def _run(self) -> None:
        while due := self._wait():
            for function in due:
                try:
                    function()
                except Exception:
                    log.exception("a call of the watchdog failed")

    def _wait(self) -> list[Callable[[], object]]:
        """Return the functions that are due next; none if this thread is no longer needed."""
        with self._changed:
            while self._thread is threading.current_thread():
                now = time.monotonic()
                due = [owner for owner, (at, _) in self._calls.items() if at <= now]
                if due:
                    return [self._calls.pop(owner)[1] for owner in due]
                if not self._calls:
                    self._thread = None
                    break
                self._wakes_at = min(at for at, _ in self._calls.values())
                self._changed.wait(self._wakes_at - now)
            return []


watchdog = Watchdog()
_running = threading.BoundedSemaphore(MAX_RUNNING)


def _after_fork() -> None:
    """Replace the locks, because threads that the child does not have may hold them."""
    global _running  # noqa: PLW0603
    watchdog.forget()
    _running = threading.BoundedSemaphore(MAX_RUNNING)


os.register_at_fork(after_in_child=_after_fork)


class Deadline:
    """`with Deadline(10) as deadline:` limits everything in the block to 10 seconds in total.

    After that, every connection that is watched is shut down, so that a read from it returns an
    error or the end of the stream. Check `passed` before you rely on the data.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.has_connected = False  # whether `connect` has returned a connection
        self._ends_at = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._is_over = False

    def __enter__(self) -> Self:
        watchdog.call_at(self, self._ends_at, self._shut_down)
        return self

    def __exit__(self, *_: object) -> None:
        watchdog.cancel(self)
        self._is_over = True
        self.release()

    def restart(self, seconds: float) -> None:
        """Restart with this number of seconds, for a response that does not end."""
        self.seconds = seconds
        with self._lock:
            self._ends_at = time.monotonic() + seconds
            watchdog.call_at(self, self._ends_at, self._shut_down)

    def release(self) -> bool:
        """Stop watching the connections; return False if the deadline has passed."""
        with self._lock:
            for copy in self._watched:
                copy.close()
            self._watched.clear()
            return time.monotonic() < self._ends_at

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._ends_at

    def remaining(self) -> float:
        """Return the seconds left; never 0, which would make a socket non-blocking."""
        return max(self._ends_at - time.monotonic(), 0.001)

    def connect(
        self, host: str, port: int, resolve: Callable[[str, int], str] | None = None
    ) -> socket.socket:
        """Return a TCP connection that is shut down at the deadline.

        With `resolve`, connect only to the address that it returns. Raises OSError, or ValueError
        for an invalid name, and what `resolve` raises.
        """

        def connect() -> socket.socket:
            address = host if resolve is None else resolve(host, port)
            connection = socket.create_connection((address, port), self.remaining())
            try:
                self.watch(connection)
            except BaseException:
                connection.close()
                raise
            return connection

        connection = self.run(connect, socket.socket.close)
        self.has_connected = True
        return connection

    def watch(self, connection: socket.socket) -> None:
        """Shut the connection down at the deadline. Raises TimeoutError if it has passed."""
        with self._lock:
            if self._is_over or self.passed:
                raise TimeoutError
            # A copy of the descriptor, because TLS detaches the socket object.
            copy = socket.fromfd(connection.fileno(), connection.family, connection.type)
            self._watched.append(copy)

    def run(self, work: Callable[[], T], discard: Callable[[T], object] = lambda _: None) -> T:
        """Return the result of `work`, or raise its exception; raise TimeoutError at the deadline.

        For calls that cannot be interrupted: `work` runs in a thread, which is left behind at the
        deadline. A result that arrives later is passed to `discard`. While MAX_RUNNING such
        threads exist, `work` does not begin.
        """
        limit, seconds_left = _running, self._ends_at - time.monotonic()
        if seconds_left <= 0 or not limit.acquire(timeout=seconds_left):
            raise TimeoutError
        result: Future[T] = Future()

        def run() -> None:
            try:
                value = work()
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                with contextlib.suppress(InvalidStateError):  # the deadline has passed
                    result.set_exception(error)
                return
            finally:
                limit.release()
            try:
                result.set_result(value)
            except InvalidStateError:  # the deadline has passed
                discard(value)

        try:
            threading.Thread(target=run, daemon=True).start()
        except RuntimeError:  # the process has too many threads
            limit.release()
            raise
        try:
            return result.result(max(self._ends_at - time.monotonic(), 0))
        except TimeoutError:
            if result.cancel():
                raise
            return result.result()  # `work` has ended, perhaps with a TimeoutError of its own

    def _shut_down(self) -> None:
        with self._lock:
            for copy in self._watched:
                with contextlib.suppress(OSError):  # the connection is already closed
                    copy.shutdown(socket.SHUT_RDWR)
