"""One account's way to its provider: bounded in time and size, and sure of what may be sent twice.

Errors and logs never hold the keys: they go into one header and nowhere else.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol, TypeVar, cast

import requests
from urllib3.exceptions import HTTPError

from receiver.outgoing.deadline import Deadline
from receiver.outgoing.http import origin, retry_after
from receiver.outgoing.retry import RetryPolicy
from receiver.outgoing.ssrf_guard import GuardedSession
from submitter.errors import NeverReached, OutcomeUnknown, TryLater

T = TypeVar("T")
MEGABYTE = 1024 * 1024
CHUNK = 64 * 1024  # bytes
# A create carries up to 27 MB: at 2 Mbit/s up that takes 110 s.
CREATE_WITHIN = 150.0  # seconds
ANSWER_WITHIN = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class Quota:
    """How many requests the account has left until `reset_at` (integer milliseconds UTC)."""

    remaining: int
    reset_at: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider said; `headers` are found in any case of letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def quota(self) -> Quota | None:
        """What the provider tells of its limit on requests; None if it tells nothing."""
        remaining, reset = map(self._number, ("X-RateLimit-Remaining", "X-RateLimit-Reset"))
        return None if remaining is None or reset is None else Quota(remaining, reset * 1000)

    @property
    def retry_after(self) -> float | None:
        """Seconds that the provider asks us to wait."""
        asked = retry_after(self.headers.get("Retry-After"), time.time())
        reset = self._number("X-RateLimit-Reset")  # seconds since 1970
        if asked is not None or reset is None or self.status != HTTPStatus.TOO_MANY_REQUESTS:
            return asked
        return max(reset - time.time(), 0.0)

    def _number(self, header: str) -> int | None:
        value = self.headers.get(header, "").strip()
        return int(value) if re.fullmatch(r"[0-9]{1,12}", value) else None


class Persistence(Protocol):
    """What is done while a provider says "later"."""

    def persist(self, call: Callable[[], T]) -> T:
        """What `call` returns, in the end; else the last TryLater."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on while the provider says "later". The rest is there for tests."""

    delays: tuple[float, ...]  # seconds, stretched or shortened by a tenth
    total: float  # seconds; no wait begins that would end after it
    chance: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def persist(self, call: Callable[[], T]) -> T:
        """What `call` returns, once it stops to raise TryLater; else the last TryLater."""
        policy = RetryPolicy(self.delays)
        ends_at = self.clock() + self.total
        for attempt in itertools.count(1):
            try:
                return call()
            except TryLater as later:
                delay = policy.delay(attempt, chance=self.chance(), retry_after=later.retry_after)
                if delay is None or self.clock() + delay > ends_at:
                    later.message += f" (tried {attempt} times)" if attempt > 1 else ""
                    raise
            self.sleep(delay)
        raise AssertionError  # the loop has no end


# Kling wants the first delay of a create to be 1 s at least; with the jitter, 1.2 s is.
PATIENT = Patience(delays=(1.2, 2.5, 5, 10, 20, 20), total=60)
BRISK = Patience(delays=(1.2, 2.5), total=10)
ONCE = Patience(delays=(), total=0)


@dataclass(frozen=True, slots=True)
class _Ends:
    """When exchanges are cut off, by the monotonic clock."""

    creates: float
    questions: float


_ENDS: ContextVar[_Ends | None] = ContextVar("ends", default=None)


@contextmanager
def bounded(creates: float, questions: float) -> Iterator[None]:
    """Cut off what goes out within this block, in this thread, so many seconds from now."""
    now = time.monotonic()
    before = _ENDS.set(_Ends(now + creates, now + questions))
    try:
        yield
    finally:
        _ENDS.reset(before)


def _within(usual: float, ends_at: float | None) -> float:
    """Seconds for one exchange; never quite none, which would mean "for ever"."""
    if ends_at is None:
        return usual
    return min(usual, max(round(ends_at - time.monotonic(), 1), 0.001))


@dataclass(frozen=True, slots=True)
class Client:
    """Speaks to one base URL. Each exchange has a connection of its own: a deadline that has
    passed shuts down the connections that were made under it.
    """

    base_url: str
    create_within: float = CREATE_WITHIN  # seconds, for all of one create
    answer_within: float = ANSWER_WITHIN  # seconds, for all of one question
    patient: Persistence = field(default=PATIENT)  # with creates that were told to come later
    brisk: Persistence = field(default=BRISK)  # with questions

    def ask(
        self,
        path: str,
        keys: Mapping[str, str],
        document: Mapping[str, Any] | None = None,
        *,
        max_bytes: int = MEGABYTE,
    ) -> Answer:
        """Ask: by GET, or by POST where the question is a document. `keys` is the header of them.

        Raises NeverReached, or TryLater if no whole answer came.
        """
        method = "GET" if document is None else "POST"
        ends = _ENDS.get()
        within = _within(self.answer_within, ends.questions if ends else None)
        try:
            return self._exchange(method, path, keys, document, within, max_bytes)
        except _Lost as lost:
            raise TryLater(f"{lost}; try again later") from None

    def create(self, path: str, keys: Mapping[str, str], document: Mapping[str, Any]) -> Answer:
        """Create. Raises NeverReached, or OutcomeUnknown if no whole answer came."""
        ends = _ENDS.get()
        within = _within(self.create_within, ends.creates if ends else None)
        try:
            return self._exchange("POST", path, keys, document, within, MEGABYTE)
        except _Lost as lost:
            raise OutcomeUnknown(str(lost)) from None

    def _exchange(
        self,
        method: str,
        path: str,
        keys: Mapping[str, str],
        document: Mapping[str, Any] | None,
        within: float,
        max_bytes: int,
    ) -> Answer:
        headers = {**keys, "Accept": "application/json"}
        if document is not None:
            headers["Content-Type"] = "application/json"
        body = None if document is None else json.dumps(document).encode()
        # Where the operator's own base URL leads may be an internal address: allow_private.
        with _Clock(within) as clock, GuardedSession(clock, allow_private=True) as session:
            try:
                response = cast(
                    "requests.Response",
                    session.request(
                        method,
                        self.base_url + path,
                        data=body,
                        headers=headers,
                        stream=True,
                        timeout=clock.remaining(),
                    ),
                )
                with response:
                    content = _content(response, clock, max_bytes)
                    return Answer(response.status_code, response.headers, content)
            except (HTTPError, OSError, ValueError) as error:  # requests' own are OSErrors
                raise self._explained(error, clock) from None

    def _explained(self, error: Exception, clock: _Clock) -> Exception:
        where = origin(self.base_url)
        cause = _cause(error, clock)
        if not clock.connected or isinstance(cause, ssl.SSLCertVerificationError):
            return NeverReached(
                f"{where} was never reached: {_reason(cause)}; nothing was sent: check the "
                "network and the base URL, then send it again"
            )
        return _Lost(f"{where} gave no complete answer: {_reason(cause)}")


class _Lost(Exception):
    """Something was sent, and no whole answer came back."""


class _Clock(Deadline):
    """A deadline that knows whether anything can have been sent."""

    connected = False

    def connect(self, host: str, port: int) -> Any:
        connection = super().connect(host, port)
        self.connected = True
        return connection


def _content(response: requests.Response, clock: _Clock, max_bytes: int) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(CHUNK):
        content += chunk
        if len(content) > max_bytes:
            raise OSError(0, f"it is larger than {max_bytes} bytes")
    if clock.passed:  # what looks like the end of the body may be us, hanging up
        raise TimeoutError
    return bytes(content)


def _cause(error: BaseException, clock: _Clock) -> BaseException:
    """The innermost error that says something, which is the system's or OpenSSL's."""
    if clock.passed or isinstance(error, requests.Timeout):
        return TimeoutError(0, f"no answer within {clock.seconds:g} s")
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and not isinstance(link, requests.RequestException):
            return link
        link = link.__cause__ or link.__context__
    return error


def _reason(cause: BaseException) -> str:
    """In words that hold nothing of the request: other errors' texts show URLs and headers."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not trusted ({cause.verify_message})"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return "the connection broke"
