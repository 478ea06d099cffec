"""The registry of hook types; builds the hooks of a hooks file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from receiver.config.hook_secrets import Secrets
from receiver.config.hooks_file import HookEntry, installed_types
from receiver.config.plugins import BuiltIn
from receiver.errors import SettingsError
from receiver.hooks.base import Alerting, Hook, HookType, KeepsFiles
from receiver.text.display import hiding

TYPES: Mapping[str, HookType] = BuiltIn(
    apprise="receiver.hooks.apprise:Apprise",
    command="receiver.hooks.command:Command",
    download="receiver.hooks.download:Download",
    email="receiver.hooks.email:Email",
    python="receiver.hooks.python:Python",
    queue="receiver.hooks.queue:Queue",
    slack="receiver.hooks.slack:Slack",
    webhook="receiver.hooks.webhook:Webhook",
)


def hook_type(name: str) -> HookType:
    """Return a hook type by its name in the hooks file; one of another package is imported.

    Raises SettingsError.
    """
    if name in TYPES:
        return TYPES[name]
    installed = installed_types()
    if name not in installed.usable:
        raise SettingsError([installed.problems.get(name, f'"{name}" is not a hook type')])
    plugin = installed.usable[name]
    loaded = plugin.load()
    if not callable(loaded):
        raise plugin.error("is not a class, so it cannot be a hook type")
    found: HookType = loaded
    return found


def check_installed_types() -> list[str]:
    """Import the hook types of other packages; return a line for each that cannot be used."""
    installed = installed_types()
    problems = list(installed.problems.values())
    for name in installed.usable:
        try:
            hook_type(name)
        except SettingsError as error:
            problems += error.problems
    return problems


def stores_files(type_: str) -> bool:
    """Return whether hooks of this type store files of a task. Raises SettingsError."""
    return hasattr(hook_type(type_), "remove_files")


def build_all(entries: Iterable[HookEntry], environ: Mapping[str, str]) -> dict[str, Hook]:
    """Return the hooks by name. Raises SettingsError with every mistake in every entry."""
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


def build(entry: HookEntry, environ: Mapping[str, str]) -> Hook:
    """Return a hook, with each `${NAME}` replaced by the variable NAME or the file in NAME_FILE.

    Raises SettingsError. Each line names the file, the hook, and the key or the variable.
    """
    found = Secrets(environ)
    options = {key: found.put_in(value, key) for key, value in entry.options.items()}
    problems = tuple(found.problems)
    if not problems:
        hide = hiding(found.values)
        try:
            return _checked_hook(entry, options, hide)
        except SettingsError as error:
            problems = tuple(map(hide, error.problems))  # such as a mistake within a template
    raise SettingsError([f'{entry.file}: hook "{entry.name}": {line}' for line in problems])


def _checked_hook(entry: HookEntry, options: Mapping[str, Any], hide: Callable[[str], str]) -> Hook:
    """Return the hook. Any exception in the code of another package becomes a SettingsError."""
    type_ = hook_type(entry.type)
    try:
        hook = type_(entry.name, options)
    except SettingsError:
        raise
    except Exception as error:
        if entry.type in TYPES:
            raise
        problem = hide(f"{type(error).__name__}: {error}")
        raise SettingsError([f"type: {entry.type} cannot be used: {problem}"]) from None
    if not isinstance(hook, Hook):
        raise SettingsError([f"type: {entry.type} cannot be used: it has no name or no send()"])
    if entry.alerts and not isinstance(hook, Alerting):
        raise SettingsError([f"alerts: a hook of type {entry.type} sends none; leave it out"])
    return hook


def keepers(built: Iterable[Hook]) -> list[KeepsFiles]:
    """Return the hooks that store files of a task."""
    return [hook for hook in built if isinstance(hook, KeepsFiles)]
