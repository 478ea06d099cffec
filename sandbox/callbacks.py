"""Sends callbacks: in order within a task, repeated until a 2xx, no task in another's way."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests
import urllib3

from sandbox.workers import Scheduler, Workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandbox.ledger import Ledger

THREADS = 16
LONGEST_ANSWER = 64 * 1024


@dataclass(frozen=True)
class Notice:
    """One callback as it goes over the wire, and whose it is."""

    provider: str
    task_id: str
    external_task_id: str | None
    status: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Persistence:
    """How long the sandbox insists. Its own choice: what the real providers do is not known."""

    retries: int = 5
    retry_after: float = 1.0  # seconds
    timeout: float = 10.0  # seconds, for the whole exchange


class AnswerError(Exception):
    """The answer could not be read to its end."""


class Courier:
    def __init__(self, ledger: Ledger, persistence: Persistence) -> None:
        self._ledger = ledger
        self._persistence = persistence
        self._lines: dict[str, deque[Notice]] = {}  # what each task has yet to tell
        self._lock = threading.Lock()
        self._workers = Workers("callback", THREADS)
        self._later = Scheduler("callback-retry", 1)

    def start(self) -> None:
        self._workers.start()
        self._later.start()

    def stop(self) -> None:
        self._later.stop()
        self._workers.stop()

    def send(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            self._join_line(notice)

    def _join_line(self, notice: Notice) -> None:
        with self._lock:
            line = self._lines.setdefault(notice.task_id, deque())
            line.append(notice)
            is_first = len(line) == 1
        if is_first:
            self._workers.do(lambda: self._deliver(notice, attempt=1))

    def _deliver(self, notice: Notice, attempt: int) -> None:
        if not self._attempt(notice, attempt) and attempt <= self._persistence.retries:
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

    def _attempt(self, notice: Notice, attempt: int) -> bool:
        entry = self._ledger.opened(notice, attempt)
        status = None
        try:
            with _post(notice, self._persistence.timeout) as response:
                status = response.status_code
                _read_to_end(response, time.monotonic() + self._persistence.timeout)
        except (requests.RequestException, urllib3.exceptions.HTTPError, AnswerError) as fault:
            error = f"{type(fault).__name__}: {fault}"
            return self._ledger.closed(entry, http_status=status, error=error).acknowledged
        return self._ledger.closed(entry, http_status=status).acknowledged


def _post(notice: Notice, timeout: float) -> requests.Response:
    # A connection of its own each time: one that the receiver has just closed for idleness would
    # look like a refused callback in the ledger.
    with requests.Session() as session:
        session.trust_env = False
        session.headers.clear()
        session.headers.update(notice.headers)
        return session.post(
            notice.url, data=notice.body, timeout=timeout, allow_redirects=False, stream=True
        )


def _read_to_end(response: requests.Response, deadline: float) -> None:
    size = 0
    while chunk := response.raw.read1(16 * 1024):
        size += len(chunk)
        if size > LONGEST_ANSWER:
            raise AnswerError(f"the answer is longer than {LONGEST_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise AnswerError("the answer took too long")
