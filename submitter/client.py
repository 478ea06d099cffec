"""The HTTP client for provider APIs, which limits the time and size of each exchange.

Its errors state whether a request may be repeated. Keys appear in request headers only, never in
errors or logs.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from receiver.outgoing.connections import ERRORS, exchange
from receiver.outgoing.deadline import Deadline
from receiver.outgoing.http import origin, retry_after
from receiver.outgoing.retry import RetryPolicy
from submitter.errors import NeverReached, OutcomeUnknown, ProviderError, TryLater

T = TypeVar("T")
# The error if a request may have been sent, and no complete response was received.
LostAnswer = type[TryLater] | type[OutcomeUnknown]
MEGABYTE = 1024 * 1024
CHUNK = 64 * 1024  # bytes
# A create sends up to 27 MB, which takes 110 s at an upload rate of 2 Mbit/s.
CREATE_WITHIN = 150.0  # seconds
ANSWER_WITHIN = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class Quota:
    """The number of requests that the account has left until `reset_at` (milliseconds UTC)."""

    remaining: int
    reset_at: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of a provider. The names of `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def quota(self) -> Quota | None:
        """Return the rate limit that the headers state, or None."""
        remaining, reset = map(self._number, ("X-RateLimit-Remaining", "X-RateLimit-Reset"))
        return None if remaining is None or reset is None else Quota(remaining, reset * 1000)

    @property
    def retry_after(self) -> float | None:
        """Return the number of seconds that the provider requests us to wait, or None."""
        requested = retry_after(self.headers.get("Retry-After"), time.time())
        reset = self._number("X-RateLimit-Reset")  # seconds since 1970
        if requested is not None or reset is None or self.status != HTTPStatus.TOO_MANY_REQUESTS:
            return requested
        return max(reset - time.time(), 0.0)

    def _number(self, header: str) -> int | None:
        value = self.headers.get(header, "").strip()
        return int(value) if re.fullmatch(r"[0-9]{1,12}", value) else None


class Persistence(Protocol):
    """A policy for retrying requests that a provider rejects temporarily."""

    def persist(self, call: Callable[[], T]) -> T:
        """Call until it succeeds, and return the result. Raises the last TryLater."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """Retries one call, with increasing delays. Tests replace the last three fields."""

    delays: tuple[float, ...]  # seconds, varied at random by up to a tenth
    total: float  # seconds; no delay may end later than this
    chance: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def persist(self, call: Callable[[], T]) -> T:
        """Call until it succeeds, and return the result. Raises the last TryLater."""
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
        raise AssertionError  # unreachable: the loop is infinite


# Kling requires a first delay of at least 1 s for creates; 1.2 s satisfies that with any jitter.
PATIENT = Patience(delays=(1.2, 2.5, 5, 10, 20, 20), total=60)
BRISK = Patience(delays=(1.2, 2.5), total=10)
ONCE = Patience(delays=(), total=0)


# The times, on the monotonic clock, at which exchanges of the current context are aborted.
_CREATE_UNTIL = ContextVar("create_until", default=math.inf)
_QUERY_UNTIL = ContextVar("query_until", default=math.inf)


@contextmanager
def limited(create_seconds: float, query_seconds: float) -> Iterator[None]:
    """Abort the exchanges of this thread within the block after these numbers of seconds."""
    now = time.monotonic()
    create_token = _CREATE_UNTIL.set(now + create_seconds)
    query_token = _QUERY_UNTIL.set(now + query_seconds)
    try:
        yield
    finally:
        _CREATE_UNTIL.reset(create_token)
        _QUERY_UNTIL.reset(query_token)


def _timeout(usual: float, until: float) -> float:
    """Return the seconds for one exchange; never 0, which would mean no limit."""
    return min(usual, max(round(until - time.monotonic(), 1), 0.001))


@dataclass(frozen=True, slots=True)
class Client:
    """Sends requests to one base URL.

    Each exchange uses a connection of its own: if a connection that was used before is reset, the
    provider may have received the create, and billed it.
    """

    base_url: str
    create_within: float = CREATE_WITHIN  # seconds, for one create in total
    answer_within: float = ANSWER_WITHIN  # seconds, for one query in total
    patient: Persistence = field(default=PATIENT)  # for creates
    brisk: Persistence = field(default=BRISK)  # for queries

    def ask(
        self,
        path: str,
        keys: Mapping[str, str],
        document: Mapping[str, Any] | None = None,
        *,
        max_bytes: int = MEGABYTE,
    ) -> Answer:
        """Send a query and return the response; a query with a `document` is sent by POST.

        `keys` are the headers that authenticate the account. Raises NeverReached, or TryLater if
        the response is incomplete or missing.
        """
        method = "GET" if document is None else "POST"
        timeout = _timeout(self.answer_within, _QUERY_UNTIL.get())
        return self._exchange(method, path, keys, document, timeout, TryLater, max_bytes)

    def create(self, path: str, keys: Mapping[str, str], document: Mapping[str, Any]) -> Answer:
        """Send a create and return the response.

        Raises NeverReached, or OutcomeUnknown if the response is incomplete or missing.
        """
        timeout = _timeout(self.create_within, _CREATE_UNTIL.get())
        return self._exchange("POST", path, keys, document, timeout, OutcomeUnknown)

    def _exchange(
        self,
        method: str,
        path: str,
        keys: Mapping[str, str],
        document: Mapping[str, Any] | None,
        timeout: float,
        if_lost: LostAnswer,
        max_bytes: int = MEGABYTE,
    ) -> Answer:
        # The operator chose the base URL, so it may be an internal address.
        with Deadline(timeout) as deadline:
            try:
                with exchange(
                    method,
                    self.base_url + path,
                    deadline,
                    allow_private=True,
                    reuse=False,
                    json=document,
                    headers={**keys, "Accept": "application/json"},
                ) as response:
                    content = _content(response.stream(CHUNK), deadline, max_bytes)
                    return Answer(response.status, response.headers, content)
            except ERRORS as error:
                raise self._explained(error, deadline, if_lost) from None

    def _explained(
        self, error: Exception, deadline: Deadline, if_lost: LostAnswer
    ) -> ProviderError:
        server = origin(self.base_url)
        cause = _cause(error, deadline)
        if not deadline.has_connected or isinstance(cause, ssl.SSLCertVerificationError):
            return NeverReached(
                f"{server} was never reached: {_reason(cause)}; nothing was sent. Check the "
                "network and the base URL, then retry"
            )
        advice = "; retry later" if if_lost is TryLater else ""
        return if_lost(f"{server} sent no complete response: {_reason(cause)}{advice}")


def _content(chunks: Iterable[bytes], deadline: Deadline, max_bytes: int) -> bytes:
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > max_bytes:
            raise OSError(0, f"the response is larger than {max_bytes} bytes")
    if deadline.passed:  # an expired deadline looks like the end
        raise TimeoutError
    return bytes(content)


def _cause(error: BaseException, deadline: Deadline) -> BaseException:
    """Return the innermost informative error, from the operating system or OpenSSL."""
    if deadline.passed or (isinstance(error, TimeoutError) and not error.strerror):
        return TimeoutError(0, f"no answer within {deadline.seconds:g} s")
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link
        link = link.__cause__ or link.__context__
    return error


def _reason(cause: BaseException) -> str:
    """Return a text without URLs and headers, which the texts of other errors contain."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not trusted ({cause.verify_message})"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return "the connection broke"
