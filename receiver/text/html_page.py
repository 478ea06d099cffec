"""Reads the text of an HTML page, such as the error page of a proxy."""

from __future__ import annotations

import re
from html import unescape

MAX_START = 1_000  # characters in which a page has to begin
MAX_PAGE = 20_000  # characters that are read
MAX_NAME = 10  # characters of the longest name of an element without readable text
_IS_PAGE = re.compile(r"\s*<(?:!doctype\s+html|html|head|body|title|h1|center)\b", re.IGNORECASE)
_NAME = re.compile(r"/?[a-z0-9]*", re.IGNORECASE)
_UNREADABLE = ("script", "style", "template", "svg", "noscript")


def is_page(text: str) -> bool:
    """Return whether the text begins like an HTML page."""
    start = text[:MAX_START].lstrip("\ufeff \t\r\n")
    if start.startswith("<!--"):
        start = start.partition("-->")[2]
    return _IS_PAGE.match(start) is not None


def readable(text: str) -> str:
    """Return the title and the text of an HTML page on one line; another text unchanged.

    The page may be cut anywhere. Takes linear time.
    """
    if not is_page(text):
        return text
    page = text[:MAX_PAGE].lstrip("\ufeff")
    lower = page.lower() if len(page.lower()) == len(page) else page  # as long as the page
    parts: dict[bool, list[str]] = {True: [], False: []}  # of the title, and of the rest
    is_title, place = False, 0
    while place < len(page):
        start = page.find("<", place)
        parts[is_title].append(page[place : start if start >= 0 else len(page)])
        if start < 0:
            break
        name = _NAME.match(lower, start + 1, start + 2 + MAX_NAME)
        element = name[0] if name else ""
        if not element and page[start + 1 : start + 2] not in ("!", "?"):  # a sign in the text
            parts[is_title].append("<")
            place = start + 1
            continue
        mark = "-->" if page.startswith("<!--", start) else ">"
        if element in _UNREADABLE:
            start = lower.find(f"</{element}", start)
        end = page.find(mark, start) if start >= 0 else -1
        if end < 0:
            break
        is_title = element == "title"
        parts[is_title].append(" ")
        place = end + len(mark)
    title, rest = (" ".join(unescape("".join(parts[one])).split()) for one in (True, False))
    if not title or rest.startswith(title):
        return rest or "an HTML page without text"
    return f"{title}: {rest}" if rest else title
