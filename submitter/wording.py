"""What others wrote, made safe to show: one line of bounded length that steers no terminal."""

from __future__ import annotations

import re

from receiver.text.display import redacted


def readable(text: object, most: int = 300) -> str:
    """Return at most `most` characters, redacted if the text is longer; "" if it is no text."""
    words = "".join(c if c.isprintable() else " " for c in text) if isinstance(text, str) else ""
    line = re.sub(r" +", " ", words).strip()
    return line if len(line) <= most else redacted(line)[:most]
