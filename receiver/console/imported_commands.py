"""The commands of a program, which are imported when they are used."""

from __future__ import annotations

import gc
from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Imported:
    """Where a command is, and its summary: the first paragraph of its documentation."""

    path: str  # module:attribute
    summary: str


class ImportedCommands(UserDict[str, Any]):
    """The commands of a group, each imported from its module when it is used.

    Most of the time that a short command takes is spent on imports.
    """

    def __getitem__(self, name: str) -> click.Command:
        found = self.data[name]
        if isinstance(found, Imported):
            module, _, attribute = found.path.partition(":")
            gc.disable()  # a collection finds nothing while modules are imported, and takes long
            try:
                found = getattr(import_module(module), attribute)
            finally:
                gc.enable()
        command: click.Command = found
        return command


def summary(commands: Mapping[str, click.Command], name: str, most: int) -> str | None:
    """Return the summary of a command without importing it, up to `most` characters of it.

    Return None if the command is hidden.
    """
    found = commands.data[name] if isinstance(commands, ImportedCommands) else commands[name]
    if isinstance(found, Imported):
        return found.summary[:most]
    return None if found.hidden else found.get_short_help_str(most)
