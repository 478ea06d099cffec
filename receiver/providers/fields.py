"""The fields of providers' messages: strict for identity and status, tolerant for all others.

Numbers, instants and text are accepted in every form that providers have been seen to use.
"""

# ruff: noqa: ARG002, RUF012 - signatures and attributes are marshmallow's
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from marshmallow import fields, validate

from receiver.text.display import storable

EARLIEST_INSTANT = 946_684_800_000  # ms; the year 2000
LATEST_INSTANT = 32_503_680_000_000  # ms; the year 3000, so that adding 30 days stays a date
LONGEST_INSTANT = 64  # characters of an instant that is written as text
_CODE = re.compile(r"-?[0-9]{1,10}")


class Identity(fields.String):
    """An id: a string, or an integer for its digits."""

    default_error_messages = {"invalid": "Not a string or an integer."}

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        found = identity(value)
        if found is None:
            raise self.make_error("invalid")
        return found


class Spelling(fields.String):
    """A status, as one of these spellings in any letter case."""

    def __init__(self, spellings: Iterable[str], **kwargs: Any) -> None:
        super().__init__(validate=validate.OneOf(tuple(spellings)), **kwargs)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        return value.lower()


class Text(fields.String):
    """Text for people; a number stands for its digits."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            value = amount(value)
            if value is None:
                raise self.make_error("invalid")
        return cleaned(value)


class Instant(fields.Integer):
    """Milliseconds UTC, from a number of seconds, milliseconds or microseconds, or ISO 8601."""

    default_error_messages = {"invalid": "Not an instant."}

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> int:
        found = instant(value)
        if found is None:
            raise self.make_error("invalid")
        return found


def identity(value: object) -> str | None:
    """An id as a string; None if it is neither text that can be stored as it is nor an integer."""
    if isinstance(value, str):
        return value if "\ufffd" not in cleaned(value) else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def code_in(envelope: Mapping[str, Any]) -> int | None:
    """Return the code of a response: an integer or, if there is `data`, also its digits or a float.

    None for anything else.
    """
    value = envelope.get("code")
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    if "data" not in envelope:
        return None
    if isinstance(value, str) and _CODE.fullmatch(value.strip()):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def instant(value: object) -> int | None:
    """Milliseconds UTC; None for a value that is no instant between 2000 and 3000.

    The unit of a number is recognised by its magnitude: a number of seconds in this time has at
    most 11 digits, one of milliseconds 12 to 14, one of microseconds 15 to 17.
    """
    if isinstance(value, str):
        written = value.strip()
        if len(written) > LONGEST_INSTANT:
            return None
        try:
            value = float(written)
        except ValueError:
            return _of_iso(written)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not 0 < value <= LATEST_INSTANT * 1000:  # neither is NaN
        return None
    for factor in (1.0, 1000.0, 0.001):
        found = round(value * factor)
        if EARLIEST_INSTANT <= found <= LATEST_INSTANT:
            return found
    return None


def _of_iso(written: str) -> int | None:
    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        return None
    at = found if found.tzinfo else found.replace(tzinfo=UTC)
    milliseconds = round(at.timestamp() * 1000)
    return milliseconds if EARLIEST_INSTANT <= milliseconds <= LATEST_INSTANT else None


def amount(value: object) -> str | None:
    """A decimal string, from a string that is not empty or from a finite number; else None."""
    if isinstance(value, str):
        return cleaned(value) or None
    if isinstance(value, int):
        return None if isinstance(value, bool) else str(value)
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    return f"{Decimal(repr(value)):f}"


def cleaned(written: str) -> str:
    """The text with the characters that cannot be stored replaced: NUL, and lone surrogates."""
    return storable(written)
