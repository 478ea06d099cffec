"""Sends callbacks: in order for each task, repeated until a 2xx, without waits between tasks."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3

from sandbox.outgoing_callbacks import OutgoingCallback, Transmission
from sandbox.workers import Scheduler, Workers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox.ledger import Ledger

THREADS = 16
LONGEST_RESPONSE = 64 * 1024
RESPONSE_KEPT = 200  # characters


@dataclass(frozen=True)
class Persistence:
    """The retries of a callback.

    The providers document no figures, so we chose them.
    """

    retries: int = 5
    retry_after: float = 1.0  # seconds
    timeout: float = 10.0  # seconds, for the whole exchange


class ResponseError(Exception):
    """The response could not be read to its end."""


class CallbackSender:
    """Sends callbacks from a pool of threads.

    `pace`: seconds between two status changes of a task.
    """

    def __init__(self, ledger: Ledger, persistence: Persistence, pace: float = 1.0) -> None:
        self._ledger = ledger
        self._persistence = persistence
        self._pace = pace
        self._queues: dict[str, deque[OutgoingCallback]] = {}  # queued callbacks by task
        self._delayed = 0
        self._held: dict[str, list[OutgoingCallback]] = {}  # sent after the final callback, by task
        self._lock = threading.Lock()
        self._workers = Workers("callback", THREADS)
        self._later = Scheduler("callback-retry", 1)

    def start(self) -> None:
        self._workers.start()
        self._later.start()

    def stop(self) -> None:
        self._later.stop()
        self._workers.stop()

    @property
    def is_idle(self) -> bool:
        """Return whether no callback is queued, delayed or still retried."""
        with self._lock:
            return not self._queues and not self._delayed and not self._held

    def send(self, callbacks: Iterable[OutgoingCallback]) -> None:
        for callback in callbacks:
            if callback.held:
                with self._lock:
                    self._held.setdefault(callback.task_id, []).append(callback)
            elif callback.delay:
                self._send_later(callback)
            else:
                self._enqueue(callback)
                if callback.is_end:
                    self._release(callback.task_id)

    def _release(self, task_id: str) -> None:
        with self._lock:
            held = self._held.pop(task_id, [])
        for callback in reversed(held):
            self._enqueue(callback)

    def _send_later(self, callback: OutgoingCallback) -> None:
        with self._lock:
            self._delayed += 1

        def enqueue() -> None:
            self._enqueue(callback)
            with self._lock:
                self._delayed -= 1

        self._later.after(callback.delay * self._pace, enqueue)

    def _enqueue(self, callback: OutgoingCallback) -> None:
        with self._lock:
            queue = self._queues.setdefault(callback.task_id, deque())
            queue.append(callback)
            is_first = len(queue) == 1
        if is_first:
            self._workers.do(lambda: self._deliver(callback, attempt=1))

    def _deliver(self, callback: OutgoingCallback, attempt: int) -> None:
        is_done = self._attempt_copies(callback, attempt) or not callback.insisted
        if not is_done and attempt <= self._persistence.retries:
            again = self._persistence.retry_after
            self._later.after(
                again, lambda: self._workers.do(lambda: self._deliver(callback, attempt + 1))
            )
            return
        self._send_next(callback.task_id)

    def _send_next(self, task_id: str) -> None:
        with self._lock:
            queue = self._queues[task_id]
            queue.popleft()
            if not queue:
                del self._queues[task_id]
                return
            following = queue[0]
        self._workers.do(lambda: self._deliver(following, attempt=1))

    def _attempt_copies(self, callback: OutgoingCallback, attempt: int) -> bool:
        """Send all copies concurrently; return whether every one was acknowledged."""
        if callback.copies == 1:
            return self._attempt(callback, attempt)
        with ThreadPoolExecutor(callback.copies) as pool:
            tries = [pool.submit(self._attempt, callback, attempt) for _ in range(callback.copies)]
        return all(one.result() for one in tries)

    def _attempt(self, callback: OutgoingCallback, attempt: int) -> bool:
        entry = self._ledger.opened(callback, attempt)
        if callback.transmission is not Transmission.WHOLE:
            error = _send_with_fault(callback, self._persistence.timeout)
            return self._ledger.closed(entry, error=error).acknowledged
        status = None
        try:
            with _post(callback, self._persistence.timeout) as response:
                status = response.status_code
                text = _read_to_end(response, time.monotonic() + self._persistence.timeout)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ResponseError) as fault:
            error = f"{type(fault).__name__}: {fault}"
            return self._ledger.closed(entry, http_status=status, error=error).acknowledged
        return self._ledger.closed(entry, http_status=status, answer=text).acknowledged


def _post(callback: OutgoingCallback, timeout: float) -> requests.Response:
    # A new connection each time: a pooled one that the receiver has just closed as idle would look
    # like a refused callback in the ledger.
    with requests.Session() as session:
        session.trust_env = False
        session.headers.clear()
        session.headers.update(callback.headers)
        return session.request(
            callback.method,
            callback.url,
            data=callback.body,
            timeout=timeout,
            allow_redirects=False,
            stream=True,
        )


def _send_with_fault(callback: OutgoingCallback, timeout: float) -> str:
    """Send the callback with its fault, without waiting for a response; return a description."""
    parts = urlsplit(callback.url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    is_whole = callback.transmission is Transmission.HANGS_UP
    try:
        connection.putrequest("POST", parts.path or "/", skip_accept_encoding=True)
        for name, value in callback.headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(callback.body)))
        connection.endheaders(
            callback.body if is_whole else callback.body[: len(callback.body) // 2]
        )
    except (OSError, HTTPException) as fault:
        return f"{type(fault).__name__}: {fault}"
    finally:
        connection.close()
    return (
        "closed the connection before the response"
        if is_whole
        else "closed the connection in the middle of the body"
    )


def _read_to_end(response: requests.Response, deadline: float) -> str:
    """Return the first characters of the response; raise ResponseError if it is too long or
    slow.
    """
    size, kept = 0, b""
    while chunk := response.raw.read1(16 * 1024):
        size += len(chunk)
        kept = (kept + chunk)[: RESPONSE_KEPT * 4]
        if size > LONGEST_RESPONSE:
            raise ResponseError(f"the response is longer than {LONGEST_RESPONSE} bytes")
        if time.monotonic() > deadline:
            raise ResponseError("the response took too long")
    return kept.decode("utf-8", "replace")[:RESPONSE_KEPT]
