"""The register of hook types, and how the hooks of a hooks file are built."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from receiver.errors import SettingsError
from receiver.hooks.apprise import Apprise
from receiver.hooks.base import Alerting, Hook, HookType, KeepsFiles
from receiver.hooks.bucket import is_in_a_bucket
from receiver.hooks.command import Command
from receiver.hooks.download import Download
from receiver.hooks.email import Email
from receiver.hooks.python import Python
from receiver.hooks.slack import Slack
from receiver.hooks.webhook import Webhook
from receiver.hooks_file import HookEntry

TYPES: Mapping[str, HookType] = {
    "apprise": Apprise,
    "command": Command,
    "download": Download,
    "email": Email,
    "python": Python,
    "slack": Slack,
    "webhook": Webhook,
}

# The types whose hooks store files of a task.
FILE_TYPES = frozenset(name for name, kind in TYPES.items() if hasattr(kind, "remove_files"))

__all__ = ["FILE_TYPES", "TYPES", "Hook", "build", "build_all", "keepers"]

PLACE_OF_A_SECRET = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def build_all(entries: Iterable[HookEntry], environ: Mapping[str, str]) -> dict[str, Hook]:
    """The hooks by name. Raises SettingsError with every mistake in every entry."""
    built: dict[str, Hook] = {}
    problems: list[str] = []
    for entry in entries:
        try:
            built[entry.name] = build(entry, environ)
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(problems)
    return built


def keepers(built: Iterable[Hook]) -> list[KeepsFiles]:
    """Return those of the hooks that store files of a task."""
    return [hook for hook in built if isinstance(hook, KeepsFiles)]


def build(entry: HookEntry, environ: Mapping[str, str]) -> Hook:
    """One hook, with each `${NAME}` taken from the environment, or from the file in `NAME_FILE`.

    Raises SettingsError that names the hook, the key and, if it is that, the missing variable.
    """
    secrets = _Secrets(environ)
    options = {key: secrets.put_in(value, key) for key, value in entry.options.items()}
    problems = tuple(secrets.problems)
    if not problems:
        try:
            hook = TYPES[entry.type](entry.name, options)
            if not entry.alerts or isinstance(hook, Alerting):
                return hook
            problems = (f"alerts: a hook of type {entry.type} can tell nobody; leave it out",)
        except SettingsError as error:
            problems = error.problems
    raise SettingsError([f'hook "{entry.name}": {line}' for line in problems])


def secrets(entries: Iterable[HookEntry], environ: Mapping[str, str]) -> frozenset[str]:
    """What must not be shown of these entries: values from the environment, and URLs."""
    found = _Secrets(environ)
    for entry in entries:
        for key, value in entry.options.items():
            for text in _texts(found.put_in(value, key)):
                if "://" in text and not is_in_a_bucket(text):  # that one holds no secret
                    found.values.add(text)
    return frozenset(found.values)


def _texts(value: Any) -> Iterator[str]:
    """Every string in an option."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


@dataclass(slots=True)
class _Secrets:
    """Puts the environment's values in the place of `${NAME}`, and notes what is not there."""

    environ: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    values: set[str] = field(default_factory=set)

    def put_in(self, value: Any, key: str) -> Any:
        if isinstance(value, list):
            return [self.put_in(item, key) for item in value]
        if isinstance(value, Mapping):
            return {name: self.put_in(item, f"{key}.{name}") for name, item in value.items()}
        if isinstance(value, str):
            return PLACE_OF_A_SECRET.sub(lambda found: self._value(found[1], key), value)
        return value

    def _value(self, name: str, key: str) -> str:
        value = self._found(name, key)
        self.values.add(value)
        return value

    def _found(self, name: str, key: str) -> str:
        if self.environ.get(name):
            return self.environ[name]
        path = self.environ.get(f"{name}_FILE")
        if not path:
            self.problems.append(f"{key}: {name} is not set (nor is {name}_FILE)")
            return ""
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            self.problems.append(f"{key}: {name}_FILE: {path} is not a readable file")
            return ""
