"""What every command shares: errors as lines for people, JSON for scripts, common options."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from receiver.console import output, terminal
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.text import display
from submitter import report
from submitter.errors import ConfigurationError, InputError, SubmitterError
from submitter.providers import DEFAULT_PROVIDER, PROVIDERS
from submitter.providers.base import Page
from submitter.settings import DEFAULT_ACCOUNT
from submitter.wording import readable

REFUSED, USAGE, INTERRUPTED = 1, 2, 130
ARGUMENTS = {"file": "FILE"}  # all other fields are options
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
provider = click.option(
    "--provider", type=click.Choice(list(PROVIDERS)), default=DEFAULT_PROVIDER, show_default=True
)
account = click.option(
    "--account",
    default=DEFAULT_ACCOUNT,
    metavar="NAME",
    help="Which keys to use: `shop2` reads KLING_SHOP2_API_KEY and so on.",
)
model = click.option("--model", help="The provider's model.  [default: the provider's first]")


class Commands(click.Group):
    """Turns our errors into lines for people."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if wrong := terminal.not_utf8(args):
            raise click.UsageError(f"an argument is not UTF-8: {wrong}", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with terminal.output(complain, lambda: ctx.exit(REFUSED)):
                return super().invoke(ctx)
        except (ConfigurationError, SettingsError) as error:
            complain(error.problems)
            ctx.exit(USAGE)
        except InputError as error:
            name = ARGUMENTS.get(error.field) or f"--{error.field.replace('_', '-')}"
            complain([f"{name}: {error.message}"])
            ctx.exit(USAGE)
        except (SubmitterError, CallbackReceiverError) as error:
            complain([str(error)])
            ctx.exit(REFUSED)
        except KeyboardInterrupt:
            complain(["interrupted; what is on record stays there: see `receiver tasks`"])
            ctx.exit(INTERRUPTED)


def print_page(page: Page) -> None:
    """A table for people; a line a task, separated by tabs, for other programs."""
    if not sys.stdout.isatty():
        for task in page.tasks:
            click.echo("\t".join(map(display.plain, report.row(task))))
        return
    columns = ("its id", "our id", "status", "created", "result")
    output.show_table(columns, map(report.row, page.tasks), "No tasks.")


def print_lines(lines: Iterable[str]) -> None:
    """Print each on one line, without characters that would steer a terminal."""
    for line in lines:
        click.echo(display.plain(line))


def print_json(document: Any) -> None:
    click.echo(display.json_readable(document))


def complain(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"submitter: {readable(line, 2000)}", err=True)
