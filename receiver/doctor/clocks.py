"""Compares the clock of this machine with the Date header of HTTP responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

from receiver.clock import wall_ms
from receiver.doctor.findings import Finding, failed, ok, warning
from receiver.errors import DeliveryFailure
from receiver.outgoing import http
from receiver.providers.base import Provider

CHECK = "clock"
TOLERATED = 300  # seconds by which the time of a signature may differ from ours
NOTICED = 30  # seconds
WITHIN = 10.0  # seconds for one response
SET_IT = "set the clock: timedatectl set-ntp true"


def reference_urls(
    providers: Iterable[Provider], environment: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the URLs of the providers whose clocks have to agree with ours."""
    clocks = [provider.clock for provider in providers if provider.clock is not None]
    return tuple(environment.get(clock.setting, "").strip() or clock.url for clock in clocks)


def check(urls: Sequence[str]) -> Finding:
    """Compare the clock with the first of these URLs that responds with a Date header."""
    problems = []
    for url in urls:
        try:
            return judged(http.origin(url), _seconds_ahead(url))
        except (DeliveryFailure, ValueError) as error:
            problems.append(str(error))
    reason = "; ".join(problems) or "there is no server to compare it with"
    return warning(CHECK, f"not compared: {reason}", "compare it yourself: date -u")


def judged(origin: str, ahead: float) -> Finding:
    """Return the finding for a clock that is this many seconds ahead of the server's."""
    direction = "ahead of" if ahead > 0 else "behind"
    difference = f"{abs(ahead):.0f} s {direction} {origin}"
    if abs(ahead) > TOLERATED:
        return failed(CHECK, f"{difference}: valid signatures and keys are rejected", SET_IT)
    if abs(ahead) > NOTICED:
        return warning(CHECK, f"{difference}; signatures tolerate {TOLERATED} s", SET_IT)
    return ok(CHECK, f"within {NOTICED} s of {origin}")


def ahead_of(date: str | None, asked_at: int, answered_at: int) -> float:
    """Return the seconds by which our clock is ahead of a Date header.

    The header was written between these two instants of our clock (ms UTC). Raises ValueError if it
    is not a date.
    """
    moment = parsedate_to_datetime(date or "")
    theirs = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    ours = (asked_at + answered_at) / 2000
    return ours - theirs - 0.5  # a Date header has no fractions


def _seconds_ahead(url: str) -> float:
    asked_at = wall_ms()
    with http.stream(url, deadline=WITHIN, max_bytes=1, allow_private=True) as incoming:
        date = incoming.headers.get("Date")
        try:
            return ahead_of(date, asked_at, wall_ms())
        except ValueError:
            raise ValueError(f"{http.origin(url)}: the response has no Date header") from None
