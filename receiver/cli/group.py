"""The command group of the `receiver` program: imports commands lazily and reports errors."""

from __future__ import annotations

import sys
from collections import UserDict
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import click

from receiver.console import terminal
from receiver.console.program import Program
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.text.display import plain_lines

USAGE, REFUSED = 2, 1  # exit statuses


class ImportedCommands(UserDict[str, Any]):
    """The commands of a group, each imported from its module when it is first used.

    A short command spends most of its time on imports. The value for each name is
    `module:attribute`; the module is in this package.
    """

    def __getitem__(self, name: str) -> click.Command:
        if isinstance(self.data[name], str):
            module, _, attribute = self.data[name].partition(":")
            self.data[name] = getattr(import_module(f"{__package__}.{module}"), attribute)
        command: click.Command = self.data[name]
        return command


class Commands(Program):
    """Prints the errors of this package as lines: status 2 for settings, 1 for all others."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            self.read_settings(ctx)
            with terminal.output(complain, lambda: ctx.exit(REFUSED)):
                return super().invoke(ctx)
        except SettingsError as error:
            complain(error.problems)
            ctx.exit(USAGE)
        except CallbackReceiverError as error:
            complain([str(error)])
            ctx.exit(REFUSED)


def complain(lines: Iterable[str]) -> None:
    """Print each line on standard error, prefixed with the name of the program."""
    for line in lines:
        for text in f"receiver: {plain_lines(line)}".split("\n"):
            click.echo(terminal.fitting(text, sys.stderr), err=True)
