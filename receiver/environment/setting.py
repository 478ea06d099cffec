"""A declared setting, and the environment that declared settings are read from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Setting(Generic[T]):
    """One setting: an environment variable, or the file that `NAME_FILE` names.

    The receiver's table of settings consists of these, and each provider adapter declares the one
    with the secrets of its callbacks. `.env.example` and docs/settings.md are written from them.
    """

    name: str
    read: Callable[[str], T]  # raises ValueError("is not …; use …") without repeating the text
    default: T  # the value if the setting is unset or empty
    summary: str  # one sentence, for docs/settings.md
    details: str = ""  # more sentences, for `.env.example`
    unset: str = "none"  # what docs/settings.md shows as the default, if `default` has no text
    example: str = ""  # for `.env.example`, if `default` has no text
    is_secret: bool = False  # whether its value must never be shown
    may_be_file: bool = True

    @property
    def default_text(self) -> str:
        """The default as it is written in the environment; empty if there is none."""
        if isinstance(self.default, bool):
            return str(int(self.default))
        return "" if self.default in (None, ()) else str(self.default)


class Environment:
    """Reads settings and collects all problems, so that they can be reported together.

    A setting that is empty or consists of spaces is unset. `NAME_FILE` takes precedence over
    `NAME`. `problems` has one line for each problem: the name, what is wrong, and what to do.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = os.environ if variables is None else variables
        self.problems: list[str] = []

    def value(self, setting: Setting[T]) -> T:
        """Return the value of a setting, or its default if the setting is unset or wrong."""
        text, is_shown = self._text(setting)
        if not text:
            return setting.default
        try:
            return setting.read(text)
        except ValueError as error:
            subject = "the value"
            if is_shown:
                subject = text if re.fullmatch("[!-~]+", text) else repr(text)
            self.problems.append(f"{setting.name}: {subject} {error}")
            return setting.default

    def is_set(self, setting: Setting[Any]) -> bool:
        """Return whether the setting has a value, be it right or wrong, or names a file."""
        names = (setting.name, f"{setting.name}_FILE") if setting.may_be_file else (setting.name,)
        return any(self._variables.get(name, "").strip() for name in names)

    def _text(self, setting: Setting[Any]) -> tuple[str, bool]:
        """Return the text of a setting, and whether an error may show it."""
        path = self._variables.get(f"{setting.name}_FILE", "").strip()
        if path and setting.may_be_file:
            try:
                return Path(path).read_text(encoding="utf-8").strip(), False
            except (OSError, ValueError):
                self.problems.append(
                    f"{setting.name}_FILE: {path} is not a readable text file; correct the path, "
                    "or let this user read the file"
                )
                return "", False
        return self._variables.get(setting.name, "").strip(), not setting.is_secret
