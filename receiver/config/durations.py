"""Durations and instants as people write them: `90s`, `12h`, `30d`; `2026-11-20T08:00:00Z`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
LONGEST = 100 * 366 * 86_400  # seconds
REMEDY = "use one like 90s, 15m, 12h, 30d or 8w"


def parse(text: str) -> int:
    """Return the seconds of a duration. Raises ValueError, which shows the format."""
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*([smhdw])\s*", text)
    seconds = int(found[1]) * SECONDS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST:
        raise ValueError(f"{text!r} is not a duration; {REMEDY}")
    return seconds


def moment(text: str, now: int) -> int:
    """Return an instant that is given in RFC 3339, or as a duration before `now`.

    Both instants are integer milliseconds UTC. Raises ValueError, which shows the format.
    """
    try:
        return now - parse(text) * 1000
    except ValueError:
        pass  # not a duration
    try:
        found = datetime.fromisoformat(text)
        aware = found if found.tzinfo else found.replace(tzinfo=UTC)
        return round(aware.timestamp() * 1000)
    except (ValueError, OverflowError):
        hint = "use a duration back from now, such as 2d, or 2026-11-20T08:00:00Z"
        raise ValueError(f"{text!r} is not an instant; {hint}") from None
