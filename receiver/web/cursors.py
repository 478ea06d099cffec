"""Pages of the record: an opaque cursor names the row after which the next page begins."""

from __future__ import annotations

import base64
import re

from marshmallow import ValidationError


def encode(kind: str, row: int | None) -> str | None:
    """The cursor for what comes after this row; None at the end."""
    if row is None:
        return None
    return base64.urlsafe_b64encode(f"{kind}:{row}".encode()).rstrip(b"=").decode()


def decode(kind: str, cursor: str) -> int:
    """The row in a cursor of this kind of list. Raises ValidationError."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", cursor):
        padded = cursor + "=" * (-len(cursor) % 4)
        try:
            text = base64.urlsafe_b64decode(padded).decode("ascii")
        except ValueError:
            text = ""
        # Eighteen digits stay within what a database calls an integer.
        found, _, row = text.partition(":")
        if found == kind and re.fullmatch(r"[0-9]{1,18}", row):
            return int(row)
    raise ValidationError("is not a cursor of this list; give `next` of the page before")
