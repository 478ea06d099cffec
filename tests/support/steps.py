"""Counts the steps of a function, so that a test can check its growth without a clock."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from types import FrameType
from typing import Any


def steps(work: Callable[[], object]) -> int:
    """Return the number of lines of Python that this runs in this thread."""
    count = 0

    def trace(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def grows_linearly(work: Callable[[int], object], size: int) -> bool:
    """Return whether four times the size takes at most about four times the steps."""
    work(1)  # imports and cached results do not count as work
    few = steps(lambda: work(size))
    return steps(lambda: work(4 * size)) <= 5 * few + 2000


def refusing_long_runs(normalize: Callable[[Any, str], str]) -> Callable[[Any, str], str]:
    """Return `unicodedata.normalize` with an error for many combining characters in a row.

    It sorts them in quadratic time, but counts as one step.
    """

    def normalized(form: Any, text: str) -> str:
        run = 0
        for character in "".join(normalize("NFKD", one) for one in text):
            run = run + 1 if unicodedata.combining(character) else 0
            assert run <= 100, "many combining characters are sorted"
        return normalize(form, text)

    return normalized


class Counted(str):
    """A text that counts how often it is compared."""

    comparisons = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other) is True

    def __hash__(self) -> int:
        return str.__hash__(self)
