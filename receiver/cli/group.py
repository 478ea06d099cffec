"""The command group of the `receiver` program, which reports errors."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from receiver.console import terminal
from receiver.console.program import Program
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.text.display import plain_lines

USAGE, REFUSED = 2, 1  # exit statuses


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
        except click.UsageError:
            raise  # click also prints how the command is used
        except click.ClickException as error:
            complain([error.format_message()])
            ctx.exit(error.exit_code)


def complain(lines: Iterable[str]) -> None:
    """Print each line on standard error, prefixed with the name of the program."""
    for line in lines:
        for text in f"receiver: {plain_lines(line)}".split("\n"):
            click.echo(terminal.fitting(text, sys.stderr), err=True)
