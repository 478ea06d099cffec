"""The headers of a callback; which are kept with it: few, short, and without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote

from receiver.text.content_encoding import HEADER
from receiver.text.redaction import redacted

MOST_HEADERS = 50
LONGEST_VALUE = 1_000  # characters
MOST_CHARACTERS = 8_000  # of all that is kept; a longer header, or one more, is left out whole
_ENCODING = HEADER.lower()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
# They carry a visitor's, a proxy's or the provider's secrets, and say nothing of the callback.
_SECRET = re.compile(
    r"auth|cookie|token|secret|passw|credential|session|signature|api-?key|access-?key|csrf|jwt",
    re.IGNORECASE,
)
# A path of ours, however a proxy wrote it: its last part is the token.
_OURS = re.compile(r"callbacks\W", re.IGNORECASE)


def lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers, names in lower case."""
    return {name.lower(): value for name, value in headers}


def stored_headers(headers: Iterable[tuple[str, str]], token: str | None) -> dict[str, str]:
    """What may be kept of these headers; `token` is the one in the path of the request."""
    found: dict[str, str] = {}
    room = MOST_CHARACTERS
    for name, value in headers:
        size = len(name) + len(value)
        is_encoding = name.lower() == _ENCODING  # needed to parse the stored body again
        fits = is_encoding or (len(found) < MOST_HEADERS and size <= room)
        if fits and len(value) <= LONGEST_VALUE and _is_plain(name):
            plain, shown = _read(value)
            if shown is not None and not (token and token in plain):
                found[HEADER if is_encoding else name] = shown
                room -= size
    return found


# What every callback of a provider brings again is looked at once.
@lru_cache(maxsize=1024)
def _is_plain(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not _SECRET.search(name)


@lru_cache(maxsize=1024)
def _read(value: str) -> tuple[str, str | None]:
    """The value decoded, and as it may be kept; None: it names an address of ours."""
    plain = unquote(unquote(value))  # a proxy may have encoded what was encoded
    return plain, None if _OURS.search(plain + " ") else redacted(value)
