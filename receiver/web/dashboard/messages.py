"""What a provider sent, as a page shows it: whole, readable, and without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from receiver.providers.fields import cleaned
from receiver.providers.json_body import is_deep
from receiver.stores.sql.rows import StoredCallback

MOST_INDENTED = 20  # levels; real messages have four
SHOWN = 20_000  # characters; more would only make the page slow


@dataclass(frozen=True, slots=True)
class Message:
    """A stored callback with its text for people; the text is empty if the body is not text."""

    stored: StoredCallback
    headers: list[tuple[str, str]]
    text: str
    is_cut: bool


def message(stored: StoredCallback, hide: Callable[[str], str]) -> Message:
    """The message; JSON is set out line by line, anything else as it came."""
    text = hide(_set_out(stored.callback.readable))
    headers = [(name, hide(value)) for name, value in sorted(stored.callback.headers.items())]
    return Message(stored, headers, text[:SHOWN], len(text) > SHOWN)


def _set_out(body: bytes) -> str:
    try:
        text = body.decode(json.detect_encoding(body), "replace")
        document = json.loads(text, strict=False, object_pairs_hook=_without_repeats)
        # Deep levels would be indented by more than the message is long.
        indent = None if is_deep(document, MOST_INDENTED) else 2
        text = json.dumps(document, indent=indent, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
        if _is_binary(text):
            return ""
    return cleaned(text)


def _is_binary(text: str) -> bool:
    """Return whether more than a quarter of the beginning are characters that nobody can read."""
    start = text[:1000]
    unreadable = (char == "\ufffd" or not (char.isprintable() or char.isspace()) for char in start)
    return sum(unreadable) * 4 > len(start)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one with a repeated key is shown as it came, with both values."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is repeated")
    return document
