"""What the commands share: errors as lines for people, options, and the types of their values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from receiver import durations, settings, terminal
from receiver.clock import now_ms
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.stores import Store, open_store

USAGE, REFUSED = 2, 1
ROW = click.IntRange(1, 2**63 - 1)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit = click.option("--limit", default=50, type=click.IntRange(1, 10_000), help="At most N rows.")


class Commands(click.Group):
    """Turns our errors into lines for people: status 2 for settings, 1 for a refusal."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if wrong := terminal.not_utf8(args):
            raise click.UsageError(f"an argument is not UTF-8: {wrong}", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with terminal.output(complain, lambda: ctx.exit(REFUSED)):
                return super().invoke(ctx)
        except SettingsError as error:
            complain(error.problems)
            ctx.exit(USAGE)
        except CallbackReceiverError as error:
            complain([str(error)])
            ctx.exit(REFUSED)


class Duration(click.ParamType[int]):
    """Seconds, from `90s`, `12h`, `30d` and the like."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else durations.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[int]):
    """An instant (ms UTC), from RFC 3339 (`2026-11-20T08:00:00Z`), or a duration back from now."""

    name = "MOMENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return durations.moment(value, now_ms())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def store(chosen: settings.Settings | None = None) -> Store:
    """The record, in the schema that this code wants. Raises SettingsError, StoreError."""
    found = open_store((chosen or settings.load()).database_url)
    found.check_schema()
    return found


def complain(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"receiver: {line}", err=True)
