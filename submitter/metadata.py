"""Checks the metadata of a task: the caller's own data about it, a JSON object of up to 4 kB."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from receiver.errors import RequestRefused
from receiver.providers.json_body import decode_strictly
from submitter.errors import InputError

MAX_BYTES = 4096  # of compact JSON in UTF-8
EXAMPLE = '{"cart": 7}'


def check(metadata: object) -> dict[str, Any]:
    """Return the metadata as plain JSON values; an empty object for None. Raises InputError."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InputError("metadata", f"is not an object; give one such as {EXAMPLE}")
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        content = text.encode()
    except RecursionError:
        raise InputError("metadata", "is nested too deeply") from None
    except (TypeError, ValueError) as error:  # such as a date, NaN, or half of a surrogate pair
        raise InputError("metadata", f"cannot be written as JSON: {error}") from None
    if len(content) > MAX_BYTES:
        raise InputError(
            "metadata", f"has {len(content):,} bytes as compact JSON; use at most {MAX_BYTES:,}"
        )
    return _decoded(content)


def parse(text: str) -> dict[str, Any]:
    """Return the metadata in a JSON text, such as a cell of a spreadsheet. Raises InputError."""
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise InputError("metadata", "is not UTF-8 text") from None
    return check(_decoded(content))


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        return decode_strictly(content)
    except RequestRefused as refusal:
        problem = str(refusal).replace("the body", "it")
        raise InputError("metadata", f"{problem}; give a JSON object such as {EXAMPLE}") from None
