"""Reads the whole configuration before a process starts; all problems are reported together."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from receiver.config import settings
from receiver.config.settings import Settings
from receiver.errors import SettingsError
from receiver.processes.current_hooks import Check, CurrentHooks, source_of

T = TypeVar("T")
# Named, not imported, like the commands of `serve`: the receiver does not depend on the submitter.
ACCOUNTS = "submitter.accounts"


def load(
    check: Check = lambda _: None, *, with_accounts: bool = False
) -> tuple[Settings, CurrentHooks]:
    """Return the settings and the hooks of this process, if `check` accepts the hooks.

    `with_accounts`: also check the provider accounts, which other processes use. Raises
    SettingsError with one line for each problem.
    """
    problems: list[str] = []
    chosen = _collect(problems, lambda: settings.load(creates_secret=False))
    current = None
    if not any(problem.startswith("HOOKS_FILE") for problem in problems):
        source = source_of(chosen) if chosen else settings.hooks_path()
        current = _collect(problems, lambda: CurrentHooks.load(source))
    if current:
        _collect(problems, lambda: check(current.entries))
    if with_accounts:
        problems += import_module(ACCOUNTS).problems(os.environ)
    if problems or chosen is None or current is None:
        raise SettingsError(problems)
    return chosen, current


def _collect(problems: list[str], read: Callable[[], T]) -> T | None:
    """Return what `read` returns, or None after adding its problems to `problems`."""
    try:
        return read()
    except SettingsError as error:
        problems += error.problems
        return None
