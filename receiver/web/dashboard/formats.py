"""Formats instants, durations and sizes for people, in the operator's time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from receiver.config import durations
from receiver.text import display

MINUTE, HOUR, DAY = 60, 3_600, 86_400  # seconds


@dataclass(frozen=True, slots=True)
class Formats:
    """Formats instants, which are integer milliseconds UTC, in one time zone."""

    zone: tzinfo
    name: str

    @classmethod
    def of(cls, timezone: str) -> Formats:
        return cls(UTC if timezone == "UTC" else ZoneInfo(timezone), timezone)

    def moment(self, instant: int) -> datetime:
        return display.moment(instant, self.zone)

    def when(self, instant: int) -> str:
        """Return a date and time such as `21 Nov 2026, 07:30:05`."""
        return f"{self.moment(instant):%-d %b %Y, %H:%M:%S}"

    def precise(self, instant: int) -> str:
        """Return a time such as `07:30:05.123`."""
        moment = self.moment(instant)
        return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"

    def hour(self, hour: int) -> str:
        """Return the beginning of an hour, counted from 1970, such as `07:00`."""
        return f"{self.moment(hour * 3_600_000):%H:%M}"

    def instant(self, text: str, now: int) -> int:
        """Return the instant that a person typed: `2026-11-21T07:30` in this zone, or `2d` ago.

        Raises ValueError that explains the format.
        """
        try:
            moment = datetime.fromisoformat(text)
            aware = moment if moment.tzinfo else moment.replace(tzinfo=self.zone)
            return round(aware.timestamp() * 1000)
        except (ValueError, OverflowError):
            return durations.moment(text, now)


def ago(instant: int, now: int) -> str:
    """Return a distance such as `3 min ago`, which changes at most once a minute."""
    seconds = (now - instant) / 1000
    if abs(seconds) < MINUTE:
        return "just now" if seconds >= 0 else "in less than 1 min"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def until(instant: int, now: int) -> str:
    """Return a text such as `in 2 h`, or `now` if the instant has passed."""
    return ago(instant, now) if instant > now else "now"


def span(seconds: float) -> str:
    """Return a duration in its largest unit, such as `3 min`, with the units of `elapsed`."""
    if seconds < MINUTE:
        return f"{int(seconds)} s"
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)} min"
    if seconds < 2 * DAY:
        return f"{int(seconds // HOUR)} h"
    return f"{int(seconds // DAY)} d"


def unbroken(duration: str) -> str:
    """Return a duration that breaks into lines only between its parts."""
    return re.sub(r"(?<=\d) (?=[a-z])", "\N{NO-BREAK SPACE}", duration)


def size(count: int) -> str:
    """Return a number of bytes, such as `251 kB`."""
    if count < 1_000:
        return f"{count} bytes"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1_000
        if amount < 999.5 or unit == "GB":
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    raise AssertionError  # the last unit returned


def number(count: int) -> str:
    """Return a number with a thin space between thousands, such as `50 000`."""
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def written(instant: int | None) -> str | None:
    """Return the value of `<time datetime>`."""
    return None if instant is None else display.rfc3339(instant)
