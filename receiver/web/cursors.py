"""Opaque cursors for pages of the record: each names the row after which the page begins."""

from __future__ import annotations

import base64
import re

from marshmallow import ValidationError


def encode(kind: str, row: int | None) -> str | None:
    """Return the cursor of the page after this row; None after the last page."""
    if row is None:
        return None
    return base64.urlsafe_b64encode(f"{kind}:{row}".encode()).rstrip(b"=").decode()


def decode(kind: str, cursor: str) -> int:
    """Return the row in a cursor of this kind of list. Raises ValidationError."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", cursor):
        padded = cursor + "=" * (-len(cursor) % 4)
        try:
            text = base64.urlsafe_b64decode(padded).decode("ascii")
        except ValueError:
            text = ""
        # A number of 18 digits fits into a database integer.
        found_kind, _, row = text.partition(":")
        if found_kind == kind and re.fullmatch(r"[0-9]{1,18}", row):
            return int(row)
    raise ValidationError("is not a cursor of this list; use `next` of the previous page")
