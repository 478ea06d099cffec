"""Makes text from other parties safe to display."""

from __future__ import annotations

import re

from receiver.text.display import redacted


def readable(text: object, max_chars: int = 300) -> str:
    """Return the text as one line without control characters, or "" if it is not a string.

    A longer text is redacted and then cut to `max_chars` characters.
    """
    printable = (
        "".join(c if c.isprintable() else " " for c in text) if isinstance(text, str) else ""
    )
    line = re.sub(r" +", " ", printable).strip()
    return line if len(line) <= max_chars else redacted(line)[:max_chars]
