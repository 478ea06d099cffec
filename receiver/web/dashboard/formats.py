"""Instants, spans and sizes as people read them; in the operator's time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from receiver.config import durations
from receiver.text import display
from receiver.text.display import rfc3339

MINUTE, HOUR, DAY = 60, 3_600, 86_400  # seconds


@dataclass(frozen=True, slots=True)
class Formats:
    """How times are shown in one zone. Instants are integer milliseconds UTC."""

    zone: tzinfo
    name: str

    @classmethod
    def of(cls, timezone: str) -> Formats:
        return cls(UTC if timezone == "UTC" else ZoneInfo(timezone), timezone)

    def moment(self, instant: int) -> datetime:
        return display.moment(instant, self.zone)

    def when(self, instant: int) -> str:
        """Such as `21 Nov 2026, 07:30:05`."""
        return f"{self.moment(instant):%-d %b %Y, %H:%M:%S}"

    def precise(self, instant: int) -> str:
        """Such as `07:30:05.123`."""
        shown = self.moment(instant)
        return f"{shown:%H:%M:%S}.{shown.microsecond // 1000:03d}"

    def hour(self, hour: int) -> str:
        """The beginning of an hour counted from 1970, such as `07:00`."""
        return f"{self.moment(hour * 3_600_000):%H:%M}"

    def instant(self, text: str, now: int) -> int:
        """What a person wrote: `2026-11-21T07:30` in this zone, or `2d` back from now.

        Raises ValueError that says how to write one.
        """
        try:
            written = datetime.fromisoformat(text)
            aware = written if written.tzinfo else written.replace(tzinfo=self.zone)
            return round(aware.timestamp() * 1000)
        except (ValueError, OverflowError):
            return durations.moment(text, now)


def ago(instant: int, now: int) -> str:
    """Such as `3 min ago`, or `in 2 h`; by the minute, so that a page changes no oftener."""
    seconds = (now - instant) / 1000
    if abs(seconds) < MINUTE:
        return "just now" if seconds >= 0 else "in less than 1 min"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """A length of time in its largest unit, such as `3 min`."""
    if seconds < MINUTE:
        return f"{int(seconds)} s"
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)} min"
    if seconds < 2 * DAY:
        return f"{int(seconds // HOUR)} h"
    return f"{int(seconds // DAY)} days"


def took(ms: int) -> str:
    """A short span, to the millisecond while that says something."""
    seconds = abs(ms) / 1000
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), MINUTE)
    hours, minutes = divmod(minutes, MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(count: int) -> str:
    """Bytes, such as `251 kB`."""
    if count < 1_000:
        return f"{count} bytes"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1_000
        if amount < 999.5 or unit == "GB":
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    raise AssertionError  # the last unit returned


def number(count: int) -> str:
    """With a thin space between thousands, such as `50 000`."""
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def written(instant: int | None) -> str | None:
    """For machines: the value of `<time datetime>`."""
    return None if instant is None else rfc3339(instant)
