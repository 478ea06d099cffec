"""Sends requests to URLs: to public addresses only, within a total deadline.

The name is resolved once, the address is checked, and the connection is made to that address
(see `connections`). No proxy or .netrc from the environment is used. Errors contain only the
scheme, host and port of a URL, because paths and queries may contain secrets (a Slack webhook, a
signed link).
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from urllib3.exceptions import DecodeError, HTTPError, InvalidHeader
from urllib3.response import HTTPResponse
from urllib3.util import Url, parse_url

from receiver.errors import (
    ContentFailure,
    DeliveryFailure,
    PermanentFailure,
    TemporaryFailure,
    TimedOut,
)
from receiver.outgoing import urls
from receiver.outgoing.connections import ERRORS, exchange
from receiver.outgoing.connections import prepare as prepare  # noqa: PLC0414 - exported
from receiver.outgoing.deadline import Deadline
from receiver.outgoing.ssrf_guard import NotPublic
from receiver.text.display import HIDDEN

ALLOW_PRIVATE = "allow_private = true lets this hook reach internal ones"
CHUNK = 64 * 1024  # bytes
MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Besides 5xx: the same request may succeed later.
TEMPORARY_STATUSES = frozenset({408, 425, 429})
OTHER_NAME = frozenset({62, 64})  # OpenSSL's codes for a certificate of another name or address
# Content codings that can be decoded only if a library for them is installed.
COMPRESSIONS = frozenset({"br", "compress", "x-compress", "zstd"})


class UrlRefused(PermanentFailure):
    """The URL, or a URL that it redirects to, must not be requested."""


class TooManyRedirects(TemporaryFailure):
    """The URL redirects more than MAX_REDIRECTS times."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response. The names in `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes  # at most `max_bytes`


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """A response whose body is read in chunks."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


def post(
    url: str,
    *,
    json: Any = None,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    deadline: float = 10,
    allow_private: bool = False,
    max_bytes: int = CHUNK,
) -> Response:
    """Send one POST without following redirects; return up to `max_bytes` of the response.

    `deadline` is in seconds, for the whole exchange. Every status is returned; see `failure`.
    Raises TemporaryFailure (no connection), TimedOut (no response in time) or PermanentFailure (the
    URL must not be requested).
    """
    content = {"json": json, "data": data, "headers": headers}
    with Deadline(deadline) as clock, ExitStack() as stack:
        response = _send(stack, "POST", url, clock, allow_private, content)
        body = bytearray()
        with suppress(ContentFailure):  # the status counts even if the body cannot be decoded
            for chunk in _chunks(response, url, clock):
                body += chunk
                if len(body) >= max_bytes:
                    break
        return Response(response.status, response.headers, bytes(body[:max_bytes]))


@contextmanager
def stream(
    url: str, *, deadline: float, max_bytes: int, allow_private: bool = False
) -> Iterator[StreamedResponse]:
    """GET a body in chunks, following up to 5 redirects, each checked like the first URL.

    URLs and redirects are interpreted as in browsers. `deadline` is in seconds, for the whole
    exchange. Raises PermanentFailure if the body is larger than `max_bytes`, UrlRefused if a
    redirect leads to a URL that must not be requested, ContentFailure if the body cannot be
    decompressed, TooManyRedirects, and the errors of `post`.
    """
    with Deadline(deadline) as clock, ExitStack() as stack:
        response, url = _follow(stack, url, clock, allow_private)
        chunks = _capped(_chunks(response, url, clock), max_bytes, origin(url))
        yield StreamedResponse(response.status, response.headers, chunks)


@contextmanager
def listen(
    url: str, headers: Mapping[str, str], *, deadline: float, silence: float
) -> Iterator[StreamedResponse]:
    """GET a body that does not end from the operator's URL, without following redirects.

    The response has to begin within `deadline` seconds, and no two chunks may be more than
    `silence` seconds apart. Raises the same errors as `post`.
    """
    content = {"headers": {**headers, "Accept-Encoding": "identity"}}
    with Deadline(deadline) as clock, ExitStack() as stack:
        response = _send(stack, "GET", url, clock, True, content)

        def chunks() -> Iterator[bytes]:
            clock.restart(silence)
            for chunk in _chunks(response, url, clock):
                yield chunk
                clock.restart(silence)

        yield StreamedResponse(response.status, response.headers, chunks())


def is_unavailable(status: int) -> bool:
    """Return whether the status means that the server is unavailable, which the breaker counts."""
    return status in TEMPORARY_STATUSES or 500 <= status < 600


def failure(status: int, headers: Mapping[str, str], text: str) -> DeliveryFailure:
    """Return the failure for a response that is not a success; `text` describes the response."""
    wait = retry_after(headers.get("Retry-After"), time.time())
    if is_unavailable(status):
        return TemporaryFailure(text, wait)
    return PermanentFailure(text) if 300 <= status < 500 else ContentFailure(text, wait)


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds to wait from a Retry-After header in either form; None if it is invalid.

    `now` is in seconds since 1970.
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # "-0000" stands for UTC without a known time zone
            moment = moment.replace(tzinfo=UTC)
        return max(moment.timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None


def origin(url: str) -> str:
    """Return the part of a URL that may be shown: scheme, host and port."""
    try:
        parts = parse_url(url)
    except HTTPError:
        return "the URL"
    return str(Url(scheme=parts.scheme, host=parts.host, port=parts.port)) or "the URL"


def without_path(url: str) -> str:
    """Return the origin of a URL, and `/…` in place of a path or query, which may be secret."""
    shown = origin(url)
    return shown if url.rstrip("/") == shown else f"{shown}/{HIDDEN}"


def _follow(
    stack: ExitStack, url: str, clock: Deadline, allow_private: bool
) -> tuple[HTTPResponse, str]:
    try:
        url = urls.normalized(url)
    except ValueError as error:
        raise _explained(error, url, clock) from None
    first_host = _host(url)
    for _ in range(1 + MAX_REDIRECTS):
        # `allow_private` applies to the host that was configured, not to targets of redirects.
        private = allow_private and _host(url) == first_host
        response = _send(stack, "GET", url, clock, private, {})
        following = _redirect_target(response, url)
        if following is None:
            return response, url
        url = following
        stack.close()
    raise TooManyRedirects(f"{origin(url)}: redirects more than {MAX_REDIRECTS} times")


def _redirect_target(response: HTTPResponse, url: str) -> str | None:
    """Return the URL that the response redirects to; None if it is not a redirect."""
    if response.status not in REDIRECTS:
        return None
    targets = set(response.headers.getlist("Location"))
    if len(targets) > 1:
        raise UrlRefused(f"{origin(url)}: redirects to several URLs, which is not allowed")
    try:
        following = urls.redirect_target(targets.pop(), url) if targets else None
        if following is None:
            return None
        downgrade = parse_url(url).scheme == "https" != parse_url(following).scheme
    except (HTTPError, ValueError):
        raise UrlRefused(f"{origin(url)}: redirects to an invalid URL") from None
    if downgrade:
        raise UrlRefused(f"{origin(url)}: redirects from https to http, which is not allowed")
    return following


def _host(url: str) -> str | None:
    # With the parser that `requests` uses: others find another host in `http://a\\@b/`.
    try:
        return parse_url(url).host
    except HTTPError:
        return None


def _send(
    stack: ExitStack,
    method: str,
    url: str,
    clock: Deadline,
    allow_private: bool,
    content: Mapping[str, Any],
) -> HTTPResponse:
    """Send one request; return the response before its body is read. `stack` closes it."""
    try:
        return stack.enter_context(
            exchange(method, url, clock, allow_private=allow_private, **content)
        )
    except ERRORS as error:
        raise _explained(error, url, clock) from None  # their messages contain the whole URL


def _chunks(response: HTTPResponse, url: str, clock: Deadline) -> Iterator[bytes]:
    """Yield the body. Its coding is checked here, because a status counts without its body."""
    codings = response.headers.get("Content-Encoding", "").lower().replace(" ", "").split(",")
    unknown = COMPRESSIONS.difference(HTTPResponse.CONTENT_DECODERS).intersection(codings)
    if unknown:
        raise ContentFailure(
            f"{origin(url)}: the body is compressed with {min(unknown)}, which was not requested"
        )
    try:
        yield from response.stream(CHUNK)
        if not clock.release():  # the body may have ended because the connection was shut down
            raise TimeoutError
    except (HTTPError, OSError) as error:
        raise _explained(error, url, clock) from None
    except (ValueError, OverflowError):  # the size of a chunk is negative
        raise TemporaryFailure(f"{origin(url)}: the response is malformed") from None


def _capped(chunks: Iterator[bytes], max_bytes: int, where: str) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise PermanentFailure(f"{where}: larger than the {max_bytes} bytes allowed")
        yield chunk


def _explained(error: Exception, url: str, clock: Deadline) -> DeliveryFailure:
    where = origin(url)
    if isinstance(error, NotPublic):
        return PermanentFailure(f"{where}: is not a public address; {ALLOW_PRIVATE}")
    if isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):
        return UrlRefused(f"{where}: is not an http or https URL, or is malformed")
    if isinstance(error, InvalidHeader):
        return TemporaryFailure(f"{where}: the response has several sizes as its Content-Length")
    if isinstance(error, DecodeError):
        return ContentFailure(
            f"{where}: the body cannot be decompressed: it does not match its Content-Encoding"
        )
    # The system's own timeout of a connection is not ours, and has a description.
    if clock.passed or (isinstance(error, TimeoutError) and not error.strerror):
        return TimedOut(f"{where}: no complete answer within {clock.seconds:g} s")
    return TemporaryFailure(f"{where}: {_root_cause(error)}")


def _root_cause(error: BaseException) -> str:
    """Return the message of the operating system or OpenSSL, which never contains the URL."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ssl.SSLCertVerificationError):
            is_other = link.verify_code in OTHER_NAME
            reason = "it is for another name" if is_other else link.verify_message
            return f"the TLS certificate is not trusted ({reason})"
        if isinstance(link, ssl.SSLError):
            return f"TLS failed ({link.reason})"
        if isinstance(link, socket.gaierror):
            return "the name cannot be resolved"
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        link = link.__cause__ or link.__context__
    return "the connection broke"
