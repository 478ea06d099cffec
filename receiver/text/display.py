"""Makes any text and any timestamp displayable, in every kind of output; pure."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, tzinfo
from typing import Any

from receiver.text.redaction import shortened

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Characters that control a terminal, although JSON allows them: C1 controls, and characters that
# change the direction of text.
CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# One day within the limits of `datetime`, so that a date in any time zone is still valid.
_EARLIEST, _LATEST = -62_135_510_400_000, 253_402_214_399_999  # ms UTC: years 1 and 9999
# In JSON: a pair of surrogates, an escaped backslash, or a surrogate without its other half.
_ESCAPES = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\\\|\\ud[89a-f][0-9a-f]{2}")


def encodable(text: str) -> str:
    """Return the text with lone surrogates replaced: they exist in JSON, but in no encoding."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def storable(text: str) -> str:
    """Return the text as every database stores it: also without NUL."""
    whole = text if text.isascii() else encodable(text)
    return whole.replace("\0", UNKNOWN) if "\0" in whole else whole


def plain(text: str | None) -> str:
    """Return the text with unprintable characters replaced, so that it controls no terminal.

    The result is a single line. Unlike `one_line`, it shows where characters were replaced.
    """
    shown = text or ""
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else UNKNOWN for char in shown)


def one_line(text: str, limit: int | None = None, *, is_cut: bool = False) -> str:
    """Return the text on one line, without unprintable characters and repeated spaces.

    So it cannot break a line, a header or an encoding. A text of more than `limit` characters is
    redacted and shortened; see `redaction.shortened`, also for `is_cut`.
    """
    line = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(line.split())
    return line if limit is None else shortened(line, limit, is_cut=is_cut)


def plain_lines(text: str) -> str:
    """Return the text as `plain` does, but keep its line breaks."""
    return "\n".join(plain(line.expandtabs(4)) for line in text.split("\n"))


def json_ascii(document: Any, **how: Any) -> str:
    """Return the document as ASCII JSON that every parser accepts."""
    text = json.dumps(document, **{**how, "ensure_ascii": True})
    return _ESCAPES.sub(_whole, text) if "\\ud" in text else text


def json_readable(document: Any, indent: int | None = 2) -> str:
    """Return the document as JSON that controls no terminal, with letters of all scripts."""
    text = encodable(json.dumps(document, indent=indent, ensure_ascii=False))
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def moment(instant: float, zone: tzinfo = UTC) -> datetime:
    """Return a time in milliseconds UTC as a date; the nearest one if there is no such date."""
    return datetime.fromtimestamp(min(max(instant, _EARLIEST), _LATEST) / 1000, zone)


def rfc3339(instant: float) -> str:
    """Return a time in milliseconds UTC as RFC 3339 with `Z`."""
    return moment(instant).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _whole(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) != 6 else "\\ufffd"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 task", "2 tasks", "0 deliveries"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
