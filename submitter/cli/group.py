"""Shared by the commands: the group that reports errors, and output."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from receiver.console import terminal
from receiver.console.program import Program
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.text import display
from submitter.errors import ConfigurationError, InputError, SubmitterError
from submitter.text import readable

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
ARGUMENTS = {"file": "FILE"}  # all other fields of an InputError are options


class CommandGroup(Program):
    """A group whose commands report our errors as lines on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            self.read_settings(ctx)
            with terminal.output(print_errors, lambda: ctx.exit(EXIT_FAILED)):
                return super().invoke(ctx)
        except (ConfigurationError, SettingsError) as error:
            print_errors(error.problems)
            ctx.exit(EXIT_USAGE)
        except InputError as error:
            name = ARGUMENTS.get(error.field) or f"--{error.field.replace('_', '-')}"
            print_errors([f"{name}: {error.message}"])
            ctx.exit(EXIT_USAGE)
        except (SubmitterError, CallbackReceiverError) as error:
            print_errors(str(error).splitlines())
            ctx.exit(EXIT_FAILED)
        except KeyboardInterrupt:
            print_errors(["interrupted; recorded tasks remain recorded: see `receiver tasks`"])
            ctx.exit(EXIT_INTERRUPTED)


def print_lines(lines: Iterable[str]) -> None:
    """Print each text as one line, without characters that control a terminal."""
    for line in lines:
        click.echo(display.plain(line))


def print_json(document: Any) -> None:
    click.echo(display.json_readable(document))


def print_errors(lines: Iterable[str]) -> None:
    for line in lines:
        # An indented line belongs to the line before.
        prefix = "  " if line.startswith(" ") else "submitter: "
        text = f"{prefix}{readable(line, 2000)}"
        click.echo(terminal.fitting(text, sys.stderr), err=True)
