"""Finds identifiers of a person or a task in texts that other programs wrote.

A hook may answer with the reference of a task, escaped for a URL, JSON or HTML, or in capitals.
All functions take linear time, and read at most LONGEST characters of a text.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote_plus

LONGEST = 300_000  # characters; no stored text is longer than a callback's body
SHORTEST = 4  # characters; a shorter identifier occurs in too many other texts
ROUNDS = 3  # levels of nested escapes that are decoded
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]")
MOST_MARKS = 30  # combining characters in a row, as in Unicode's Stream-Safe Text Format
_LONG_NUMBER = re.compile(r"&#[0-9]{20,}")  # not a character; Python may refuse to parse it
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|([\"\\/']))")


@dataclass(frozen=True, slots=True)
class ErasedTerms:
    """The identifiers of a person or a task: a reference, and ids."""

    folded: frozenset[str]

    @classmethod
    def of(cls, values: Iterable[str | None]) -> Self:
        """Return the terms of these values, each also in the form that it has in file names."""
        given = [value.strip() for value in values if value]
        in_files = [_NOT_IN_FILE_NAMES.sub("_", value) for value in given]
        folded = {_folded(value) for value in (*given, *in_files)}
        return cls(frozenset(term for term in folded if len(term) >= SHORTEST))

    def are_in(self, text: str | bytes) -> bool:
        """Return whether the text contains one of the terms."""
        if isinstance(text, bytes):
            text = text[: 4 * LONGEST].decode("utf-8", "replace")
        if not self.folded:
            return False
        return any(self._are_in(form) for form in _forms(text[:LONGEST]))

    def _are_in(self, text: str) -> bool:
        return any(_occurs(term, text) for term in self.folded)


def _occurs(term: str, text: str) -> bool:
    """Return whether the term occurs, but not as a part of another word or number."""
    start = text.find(term)
    while start >= 0:
        end = start + len(term)
        around = (text[start - 1 : start], text[end : end + 1])
        if not any(map(str.isalnum, around)):
            return True
        start = text.find(term, start + 1)
    return False


def _forms(text: str) -> Iterable[str]:
    """Yield the text as it is, and then after decoding each level of its escapes."""
    yield _folded(text)
    for _ in range(ROUNDS):
        plain = _ESCAPE.sub(_character, unquote_plus(text))
        plain = html.unescape(_LONG_NUMBER.sub("\ufffd", plain))
        if plain == text:
            return
        text = plain
        yield _folded(text)


def _character(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else match[3]


def _folded(text: str) -> str:
    """Return the text without differences of case, Unicode form and white space."""
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    whole = paired if paired.isascii() else _with_few_marks(paired)
    return " ".join(unicodedata.normalize("NFKC", whole).casefold().split())


def _with_few_marks(text: str) -> str:
    """Decompose the text, and keep at most MOST_MARKS combining characters in a row.

    They are sorted when a text is normalized, which takes quadratic time.
    """
    shown: list[str] = []
    marks = 0
    for character in "".join(unicodedata.normalize("NFKD", one) for one in text):
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MOST_MARKS:
            shown.append(character)
    return "".join(shown)
