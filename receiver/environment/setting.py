"""A declared setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Generic[T]):
    """One setting: an environment variable, or the file that `NAME_FILE` names.

    An adapter declares the setting with the secrets of its provider's callbacks.
    """

    name: str
    read: Callable[[str], T]  # raises ValueError without repeating the text
    default: T  # the value if the setting is unset or empty
    summary: str  # one sentence that describes it
    is_secret: bool = False  # whether its value must never be shown
