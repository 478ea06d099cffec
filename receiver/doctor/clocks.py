"""Is our clock right? Compared with the Date that other machines put into their answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

from receiver.clock import wall_ms
from receiver.doctor.findings import Finding, failed, ok, warning
from receiver.errors import DeliveryFailure
from receiver.outgoing import http

CHECK = "clock"
TOLERATED = 300  # seconds that the time of a signature may be off
NOTICED = 30  # seconds
WITHIN = 10.0  # seconds for one answer
SET_IT = "set the clock: timedatectl set-ntp true"


def check(urls: Sequence[str]) -> Finding:
    """Compare with the first of these that answers with a Date; their operators are trusted."""
    problems = []
    for url in urls:
        try:
            return judged(http.origin(url), _ahead(url))
        except (DeliveryFailure, ValueError) as error:
            problems.append(str(error))
    said = "; ".join(problems) or "there is nobody to compare it with"
    return warning(CHECK, f"not compared: {said}", "compare it yourself: date -u")


def judged(where: str, ahead: float) -> Finding:
    """What it means that our clock is so many seconds ahead of theirs."""
    direction = "ahead of" if ahead > 0 else "behind"
    off = f"{abs(ahead):.0f} s {direction} {where}"
    if abs(ahead) > TOLERATED:
        return failed(CHECK, f"{off}: right signatures and keys are refused", SET_IT)
    if abs(ahead) > NOTICED:
        return warning(CHECK, f"{off}; signatures tolerate {TOLERATED} s", SET_IT)
    return ok(CHECK, f"within {NOTICED} s of {where}")


def ahead_of(date: str | None, asked_at: int, answered_at: int) -> float:
    """Seconds that we are ahead of who wrote this Date between those instants (ms UTC).

    Raises ValueError if it is no date.
    """
    moment = parsedate_to_datetime(date or "")
    theirs = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    ours = (asked_at + answered_at) / 2000
    return ours - theirs - 0.5  # a Date has no fractions


def _ahead(url: str) -> float:
    asked_at = wall_ms()
    with http.stream(url, deadline=WITHIN, max_bytes=1, allow_private=True) as incoming:
        date = incoming.headers.get("Date")
        try:
            return ahead_of(date, asked_at, wall_ms())
        except ValueError:
            raise ValueError(f"{http.origin(url)}: answers without a Date") from None
