"""Cursors for pages of the record: each names the row after which the page begins."""

from __future__ import annotations

import re

from marshmallow import ValidationError

# A number of 18 digits fits into a database integer.
_CURSOR = re.compile(r"([a-z]{1,20})-([0-9]{1,18})", re.ASCII)


def encode(kind: str, row: int | None) -> str | None:
    """Return the cursor of the page after this row; None after the last page."""
    if row is None:
        return None
    return f"{kind}-{row}"


def pattern(kind: str) -> str:
    """Return the pattern of the cursors of this kind of list, for the OpenAPI document."""
    return f"^{kind}-[0-9]{{1,18}}$"


def decode(kind: str, cursor: str) -> int:
    """Return the row in a cursor of this kind of list. Raises ValidationError."""
    found = _CURSOR.fullmatch(cursor)
    if found and found[1] == kind:
        return int(found[2])
    raise ValidationError("is not a cursor of this list; use `next` of the previous page")
