"""Sends callbacks: in order within a task, repeated until a 2xx, no task in another's way."""

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
LONGEST_ANSWER = 64 * 1024
ANSWER_KEPT = 200  # characters


@dataclass(frozen=True)
class Persistence:
    """How long the sandbox insists. Its own choice: what the real providers do is not known."""

    retries: int = 5
    retry_after: float = 1.0  # seconds
    timeout: float = 10.0  # seconds, for the whole exchange


class AnswerError(Exception):
    """The answer could not be read to its end."""


class CallbackSender:
    """`pace` is the seconds of one pace of the tasks that it tells of."""

    def __init__(self, ledger: Ledger, persistence: Persistence, pace: float = 1.0) -> None:
        self._ledger = ledger
        self._persistence = persistence
        self._pace = pace
        self._lines: dict[str, deque[OutgoingCallback]] = {}  # what each task has yet to tell
        self._delayed = 0
        self._held: dict[str, list[OutgoingCallback]] = {}  # by task
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
        """Has everything been sent, and insisted on, to its end?"""
        with self._lock:
            return not self._lines and not self._delayed and not self._held

    def send(self, notices: Iterable[OutgoingCallback]) -> None:
        for notice in notices:
            if notice.held:
                with self._lock:
                    self._held.setdefault(notice.task_id, []).append(notice)
            elif notice.delay:
                self._send_later(notice)
            else:
                self._join_line(notice)
                if notice.is_end:
                    self._release(notice.task_id)

    def _release(self, task_id: str) -> None:
        with self._lock:
            held = self._held.pop(task_id, [])
        for notice in reversed(held):
            self._join_line(notice)

    def _send_later(self, notice: OutgoingCallback) -> None:
        with self._lock:
            self._delayed += 1

        def join() -> None:
            self._join_line(notice)
            with self._lock:
                self._delayed -= 1

        self._later.after(notice.delay * self._pace, join)

    def _join_line(self, notice: OutgoingCallback) -> None:
        with self._lock:
            line = self._lines.setdefault(notice.task_id, deque())
            line.append(notice)
            is_first = len(line) == 1
        if is_first:
            self._workers.do(lambda: self._deliver(notice, attempt=1))

    def _deliver(self, notice: OutgoingCallback, attempt: int) -> None:
        is_done = self._attempts(notice, attempt) or not notice.insisted
        if not is_done and attempt <= self._persistence.retries:
            again = self._persistence.retry_after
            self._later.after(
                again, lambda: self._workers.do(lambda: self._deliver(notice, attempt + 1))
            )
            return
        self._call_next(notice.task_id)

    def _call_next(self, task_id: str) -> None:
        with self._lock:
            line = self._lines[task_id]
            line.popleft()
            if not line:
                del self._lines[task_id]
                return
            following = line[0]
        self._workers.do(lambda: self._deliver(following, attempt=1))

    def _attempts(self, notice: OutgoingCallback, attempt: int) -> bool:
        """Send it, all its copies at once; was each of them acknowledged?"""
        if notice.copies == 1:
            return self._attempt(notice, attempt)
        with ThreadPoolExecutor(notice.copies) as pool:
            tries = [pool.submit(self._attempt, notice, attempt) for _ in range(notice.copies)]
        return all(one.result() for one in tries)

    def _attempt(self, notice: OutgoingCallback, attempt: int) -> bool:
        entry = self._ledger.opened(notice, attempt)
        if notice.manner is not Transmission.WHOLE:
            error = _send_badly(notice, self._persistence.timeout)
            return self._ledger.closed(entry, error=error).acknowledged
        status = None
        try:
            with _post(notice, self._persistence.timeout) as response:
                status = response.status_code
                said = _read_to_end(response, time.monotonic() + self._persistence.timeout)
        except (requests.RequestException, urllib3.exceptions.HTTPError, AnswerError) as fault:
            error = f"{type(fault).__name__}: {fault}"
            return self._ledger.closed(entry, http_status=status, error=error).acknowledged
        return self._ledger.closed(entry, http_status=status, answer=said).acknowledged


def _post(notice: OutgoingCallback, timeout: float) -> requests.Response:
    # A connection of its own each time: one that the receiver has just closed for idleness would
    # look like a refused callback in the ledger.
    with requests.Session() as session:
        session.trust_env = False
        session.headers.clear()
        session.headers.update(notice.headers)
        return session.request(
            notice.method,
            notice.url,
            data=notice.body,
            timeout=timeout,
            allow_redirects=False,
            stream=True,
        )


def _send_badly(notice: OutgoingCallback, timeout: float) -> str:
    """Send it as its manner wants, wait for no answer; what was wrong with it."""
    parts = urlsplit(notice.url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    is_whole = notice.manner is Transmission.HANGS_UP
    try:
        connection.putrequest("POST", parts.path or "/", skip_accept_encoding=True)
        for name, value in notice.headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(notice.body)))
        connection.endheaders(notice.body if is_whole else notice.body[: len(notice.body) // 2])
    except (OSError, HTTPException) as fault:
        return f"{type(fault).__name__}: {fault}"
    finally:
        connection.close()
    return "hung up before the answer" if is_whole else "broke off within the body"


def _read_to_end(response: requests.Response, deadline: float) -> str:
    """The beginning of the answer. Raises AnswerError."""
    size, kept = 0, b""
    while chunk := response.raw.read1(16 * 1024):
        size += len(chunk)
        kept = (kept + chunk)[: ANSWER_KEPT * 4]
        if size > LONGEST_ANSWER:
            raise AnswerError(f"the answer is longer than {LONGEST_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise AnswerError("the answer took too long")
    return kept.decode("utf-8", "replace")[:ANSWER_KEPT]
