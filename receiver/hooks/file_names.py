"""Decides which names a path template can give to files of one task, in linear time; pure.

The names come from the disk, where others may have put files.
"""

from __future__ import annotations

import glob
import string
from collections.abc import Iterable
from dataclasses import dataclass

DIGITS = frozenset(string.digits)


@dataclass(frozen=True, slots=True)
class Literal:
    """This text."""

    text: str


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of `allowed` or more."""

    allowed: frozenset[str]


@dataclass(frozen=True, slots=True)
class OptionalNumber:
    """A hyphen and digits, or nothing."""


Part = Literal | Characters | OptionalNumber


@dataclass(frozen=True, slots=True)
class NamePattern:
    """The names that consist of these parts."""

    parts: tuple[Part, ...]

    @property
    def pattern(self) -> str:
        """A glob pattern for these names, and perhaps for others."""
        return "".join(
            glob.escape(part.text) if isinstance(part, Literal) else "*" for part in self.parts
        )

    def matches(self, name: str) -> bool:
        """Whether the whole name consists of the parts."""
        ends = {0}
        for part in self.parts:
            ends = _ends(name, ends, part)
        return len(name) in ends


def _ends(name: str, starts: Iterable[int], part: Part) -> set[int]:
    """Return where the part can end in the name if it begins at one of `starts`."""
    if isinstance(part, Literal):
        return {at + len(part.text) for at in starts if name.startswith(part.text, at)}
    if isinstance(part, OptionalNumber):
        return {*starts, *_ends(name, _ends(name, starts, Literal("-")), Characters(DIGITS))}
    found: set[int] = set()
    begins = set(starts)
    for at, char in enumerate(name):
        if char in part.allowed and (at in begins or at in found):
            found.add(at + 1)
    return found
