"""The configuration of a process, and the hooks file as the process last accepted it.

A process reads the hooks file again only on SIGHUP.

A file that is being saved may be incomplete. Therefore, a process that replaces one that died does
not read the file either: `receiver serve` passes its text to the processes that it starts, and a
gunicorn worker inherits the text from the arbiter.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from receiver import providers
from receiver.clock import now_ms
from receiver.config import hook_secrets, hooks_file, settings
from receiver.config.hooks_file import HookEntry, HooksPath
from receiver.config.settings import Settings
from receiver.errors import SettingsError
from receiver.stores.base import Store
from receiver.stores.sql.activity import GONE_AFTER
from receiver.text.display import redacted, storable

REPORTS_EVERY = 2.0  # seconds
LONGEST_PROBLEM = 1_000  # characters
HANDED_DOWN = "CALLBACK_RECEIVER_HOOKS_FD"  # the descriptor of the text in a child process
REJECTED = "the hooks file was rejected, and the previous one stays in use"
RELOADED = "the hooks file was reloaded"
NEW_VARIABLES = "; a new variable, also one in .env, is known after a restart only"
# Named, not imported, like the commands of `serve`: the receiver does not depend on the submitter.
ACCOUNTS = "submitter.accounts"
T = TypeVar("T")
Check = Callable[[tuple[HookEntry, ...]], object]  # raises SettingsError


@dataclass(frozen=True, slots=True)
class CurrentHooks:
    """An accepted hooks file. `problem`: why the file was rejected at the last SIGHUP, if it was.

    The problem shows no secret, and can be stored.
    """

    source: HooksPath
    text: str
    entries: tuple[HookEntry, ...]
    problem: str | None = None

    @classmethod
    def load(cls, source: HooksPath) -> CurrentHooks:
        """Return the file that the parent process passed to this one; without one, read it.

        Raises SettingsError.
        """
        text, problem = _inherited(source) or (source.read(), None)
        return cls._parsed(source, text, problem)

    @classmethod
    def _parsed(cls, source: HooksPath, text: str, problem: str | None = None) -> CurrentHooks:
        entries = hooks_file.parse(text, source.path, providers.status_for, providers.PROVIDERS)
        return cls(source, text, entries, problem)

    def reloaded(self, check: Check = lambda _: None) -> CurrentHooks:
        """Read the file again. If it is invalid, return these hooks with its problem.

        A file that contained hooks must still exist: it may be missing while it is being saved.
        """
        must_exist = self.source.must_exist or bool(self.entries)
        try:
            text = replace(self.source, must_exist=must_exist).read()
            current = self._parsed(self.source, text)
            check(current.entries)
        except SettingsError as error:
            problem = redacted(storable("; ".join(error.problems)))
            if f" {hook_secrets.NOT_SET} " in problem:
                problem += NEW_VARIABLES
            return replace(self, problem=problem[:LONGEST_PROBLEM])
        return current

    def hand_down(self) -> tuple[tuple[int], Mapping[str, str]]:
        """Return the descriptors for a child process to inherit, and variables for its environment.

        The caller closes the descriptors.
        """
        document = {"path": str(self.source.path), "text": self.text, "problem": self.problem}
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("hooks")
        else:
            descriptor, name = tempfile.mkstemp()
            Path(name).unlink()
        with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as file:
            json.dump(document, file)
        return (descriptor,), {HANDED_DOWN: str(descriptor)}


class ProblemReports:
    """Records why a process rejected the hooks file, for other processes to show."""

    def __init__(self, store: Store, name: str, kind: str) -> None:
        self._store, self._name, self._kind = store, name, kind
        self._reported: str | None = None

    def report(self, problem: str | None) -> None:
        """Record the problem, or its absence, if it has changed.

        Raises StoreUnavailable; then the next call tries again.
        """
        if problem != self._reported:
            self._store.activity.report_problem(self._name, self._kind, problem, now_ms())
            self._reported = problem


def rejections(store: Store, now: int) -> dict[str, str]:
    """Return why running processes rejected the hooks file, by kind of process."""
    problems = store.activity.process_problems(now - GONE_AFTER)
    return {problem.kind: problem.problem for problem in problems}


def processes_by_problem(problems: Mapping[str, str]) -> dict[str, str]:
    """Return the processes by problem, because all processes usually report the same problem.

    `problems` is the result of `rejections`. The values are phrases for a sentence, such as "the
    poller, the web process and the worker".
    """
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for kind, problem in sorted(problems.items()):
        kinds[problem].append("the web process" if kind == "web" else f"the {kind}")
    return {
        problem: " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        for problem, names in kinds.items()
    }


def load_configuration(
    check: Check = lambda _: None, *, with_accounts: bool = False
) -> tuple[Settings, CurrentHooks]:
    """Return the settings and the hooks with which this process starts.

    `check` may reject the hooks. `with_accounts`: also check the provider accounts, which other
    processes use. All problems are reported together: raises SettingsError with a line for each.
    """
    problems: list[str] = []
    chosen = _collect(problems, lambda: settings.load(creates_secret=False))
    current = None
    if not any(problem.startswith("HOOKS_FILE") for problem in problems):
        current = _collect(problems, lambda: CurrentHooks.load(settings.hooks_path()))
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


_in_use: CurrentHooks | None = None


def use(current: CurrentHooks) -> None:
    """Use this file in this process and in the processes that it forks."""
    global _in_use  # noqa: PLW0603 - gunicorn's workers inherit nothing else from the arbiter
    _in_use = current


def in_use() -> CurrentHooks | None:
    """Return the file given to `use`; None if this process reads the file when it needs it."""
    return _in_use


def entries_for(chosen: Settings) -> tuple[HookEntry, ...]:
    """Return the hooks that this process uses. Raises SettingsError."""
    source = HooksPath(chosen.hooks_file, must_exist=chosen.needs_hooks_file)
    if _in_use is not None and _in_use.source == source:
        return _in_use.entries
    return CurrentHooks.load(source).entries


def known_secrets(
    chosen: Settings,
    entries: Iterable[HookEntry] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> frozenset[str]:
    """Return the secrets of these settings and of all hooks, which no process may show.

    `entries` are the hooks, if the process has already loaded them.
    """
    if entries is None:
        try:
            entries = entries_for(chosen)
        except SettingsError:  # reported by the processes that need the hooks
            entries = ()
    return hook_secrets.secrets(entries, environ) | set(chosen.secrets)


def _inherited(source: HooksPath) -> tuple[str, str | None] | None:
    """Return the text and the problem from `hand_down` of the parent; None after the first call."""
    number = os.environ.pop(HANDED_DOWN, None)
    if number is None:
        return None
    try:
        descriptor = int(number)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            file.seek(0)
            document = json.load(file)
        if document["path"] == str(source.path):
            return document["text"], document["problem"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # another program has set the variable
    return None
