"""The command group of a program: reads its file of settings, and shows whole summaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from receiver.config import env_file
from receiver.console import terminal
from receiver.console.imported_commands import summary

HELP_OPTIONS = ("-h", "--help")
ENV_FILE = "receiver.env_file"  # the key under which the option is passed to `Program`
LONGEST_SUMMARY = 1000  # characters; longer than any summary, so that click truncates none


class SummarizedGroup(click.Group):
    """A group whose help has the whole summary of each command, on as many lines as it needs."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        summaries = {
            name: summary(self.commands, name, LONGEST_SUMMARY) for name in self.list_commands(ctx)
        }
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, text) for name, text in summaries.items() if text is not None]
            )


class Program(SummarizedGroup):
    """The group of a whole program, with the option `--env-file`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if wrong := terminal.not_utf8(args):
            raise click.UsageError(f"an argument is not UTF-8: {wrong}", ctx)
        return super().parse_args(ctx, args)

    def read_settings(self, ctx: click.Context) -> None:
        """Read the file of settings, unless only help is wanted. Raises SettingsError."""
        if not set(HELP_OPTIONS) & set(ctx.args):
            env_file.load(ctx.meta.get(ENV_FILE))


def env_file_option(command: Any) -> Any:
    """Add the option `--env-file`, which `Program` uses, to the group of a program."""

    def store(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
        ctx.meta[ENV_FILE] = path

    option = click.option(
        "--env-file",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=store,
        metavar="FILE",
        help="Read settings from this file. [default: .env in the working directory, if it exists]",
    )
    return option(command)
