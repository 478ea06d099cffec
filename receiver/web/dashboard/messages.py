"""What a provider sent, as a page shows it: whole, readable, and without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from receiver.stores.base import StoredCallback

SHOWN = 20_000  # characters; more would only make the page slow


@dataclass(frozen=True, slots=True)
class Message:
    """A stored callback with its text for people."""

    stored: StoredCallback
    headers: list[tuple[str, str]]
    text: str
    is_cut: bool


def message(stored: StoredCallback, hide: Callable[[str], str]) -> Message:
    """The message; JSON is set out line by line, anything else as it came."""
    text = hide(_set_out(stored.callback.body))
    headers = [(name, hide(value)) for name, value in sorted(stored.callback.headers.items())]
    return Message(stored, headers, text[:SHOWN], len(text) > SHOWN)


def _set_out(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
