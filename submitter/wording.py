"""What others wrote, made safe to show: one line of bounded length that steers no terminal."""

from __future__ import annotations

import re


def readable(text: object, most: int = 300) -> str:
    """At most `most` characters; empty for what is no text."""
    words = "".join(c if c.isprintable() else " " for c in text) if isinstance(text, str) else ""
    return re.sub(r" +", " ", words).strip()[:most]
