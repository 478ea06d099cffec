"""Readers of settings: each returns the value of a text.

They raise ValueError with the rest of a sentence that begins with the value: the problem, and what
to use instead. The text itself may be a secret, so no reader repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

T = TypeVar("T")
GENERATOR = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
ON, OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def number(of: Callable[[str], T], low: T, high: T) -> Callable[[str], T]:
    """Return a reader of numbers from `low` to `high`; `of` is `int` or `float`."""

    def read(text: str) -> T:
        try:
            value = of(text)
            if low <= value <= high:  # type: ignore[operator] # false for NaN
                return value
        except (ValueError, OverflowError):
            pass  # the error below says what is expected
        kind = "a whole number" if of is int else "a number"
        raise ValueError(f"is not {kind} between {low} and {high}; use {low} to {high}")

    return read


def choice(of: Callable[[str], T], choices: Collection[str]) -> Callable[[str], T]:
    """Return a reader of one of these words; `of` makes the value of a word."""

    def read(text: str) -> T:
        if text not in choices:
            raise ValueError(f"is unknown; use {', '.join(choices)}")
        return of(text)

    return read


def switch(text: str) -> bool:
    """Return whether the text means "on"."""
    if text.lower() not in ON + OFF:
        raise ValueError("is neither on nor off; use 1 or 0")
    return text.lower() in ON


def secret(length: int, *, sendable: bool = False) -> Callable[[str], str]:
    """Return a reader of secrets with at least this many characters.

    A secret that must be `sendable` in a header may contain only visible ASCII characters.
    """

    def read(text: str) -> str:
        remedy = f"use at least {length} characters; make one with: {GENERATOR}"
        if len(text) < length:
            raise ValueError(f"is too short; {remedy}")
        if sendable and not re.fullmatch("[!-~]+", text):
            raise ValueError(f"contains a space or a character outside ASCII; {remedy}")
        return text

    return read


def secrets(length: int) -> Callable[[str], tuple[str, ...]]:
    """Return a reader of comma-separated secrets with at least this many characters each."""

    def read(text: str) -> tuple[str, ...]:
        found = parts(text)
        if not found or any(len(part) < length for part in found):
            raise ValueError(
                f"has a secret that is too short; use at least {length} characters for each; "
                f"make one with: {GENERATOR}"
            )
        return found

    return read


def parts(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated text that are not empty."""
    return tuple(part for piece in text.split(",") if (part := piece.strip()))


def web_url(text: str) -> SplitResult:
    """Return the parts of an HTTP URL that has no query and no fragment."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not a URL; use one like https://callbacks.example.com")
    if re.search(r"\s", text):
        raise ValueError("contains a space; remove it")
    if parts.query or parts.fragment:
        raise ValueError("has a query or a fragment; remove it")
    return parts
