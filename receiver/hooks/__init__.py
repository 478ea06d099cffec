"""The register of hook types, and how the hooks of a hooks file are built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from receiver.config.hook_secrets import PLACE_OF_A_SECRET, Secrets, secrets
from receiver.config.hooks_file import HookEntry
from receiver.errors import SettingsError
from receiver.hooks.apprise import Apprise
from receiver.hooks.base import Alerting, Hook, HookType, KeepsFiles
from receiver.hooks.command import Command
from receiver.hooks.download import Download
from receiver.hooks.email import Email
from receiver.hooks.python import Python
from receiver.hooks.slack import Slack
from receiver.hooks.webhook import Webhook

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

__all__ = [
    "FILE_TYPES",
    "PLACE_OF_A_SECRET",
    "TYPES",
    "Hook",
    "build",
    "build_all",
    "keepers",
    "secrets",
]


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
    found = Secrets(environ)
    options = {key: found.put_in(value, key) for key, value in entry.options.items()}
    problems = tuple(found.problems)
    if not problems:
        try:
            hook = TYPES[entry.type](entry.name, options)
            if not entry.alerts or isinstance(hook, Alerting):
                return hook
            problems = (f"alerts: a hook of type {entry.type} can tell nobody; leave it out",)
        except SettingsError as error:
            problems = error.problems
    raise SettingsError([f'hook "{entry.name}": {line}' for line in problems])
