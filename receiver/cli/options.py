"""The options that several commands have, the types of their values, and completion."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from receiver.clock import now_ms
from receiver.config import durations, hooks_file, settings
from receiver.errors import SettingsError
from receiver.providers import PROVIDERS, status_for
from receiver.stores.sql.rows import TimeRange

EXAMPLE = "2026-11-20T08:00:00Z"
ROW = click.IntRange(1, 2**63 - 1)


class DurationType(click.ParamType[int]):
    """A duration in seconds, written as `90s`, `12h`, `30d` or the like."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else durations.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class InstantType(click.ParamType[int]):
    """An instant (ms UTC), written in RFC 3339 or as a duration before now."""

    name = "INSTANT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return durations.moment(value, now_ms())
        except ValueError as error:
            self.fail(str(error), param, ctx)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit = click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="The most rows."
)
cursor = click.option(
    "--cursor", type=ROW, metavar="N", help="Continue after the page that printed this number."
)


def of_tasks(event: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the options which select tasks.

    The command also receives `span`: the time range of `event`, such as "Created".
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_span(*args: Any, since: int | None, until: int | None, **more: Any) -> None:
            command(*args, span=TimeRange(since, until), **more)

        options = (
            click.option("--provider", type=click.Choice(sorted(PROVIDERS))),
            click.option("--account", help="The account at the provider, such as default."),
            click.option("--reference", help="Your own name of the task, such as an order number."),
            click.option(
                "--since", type=InstantType(), help=f"{event} at or after: 2d, or {EXAMPLE}."
            ),
            click.option("--until", type=InstantType(), help=f"{event} before."),
        )
        for option in reversed(options):
            with_span = option(with_span)
        return with_span

    return decorate


def hook_names(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of hooks that begin like this; none if the hooks file is wrong."""
    try:
        entries = hooks_file.load(settings.hooks_path().path, status_for, PROVIDERS)
    except SettingsError:
        return []
    return [entry.name for entry in entries if entry.name.startswith(incomplete)]


def print_cursor(row: int | None) -> None:
    """Print on standard error how to get the next page; standard output has only the rows."""
    if row is not None:
        click.echo(f"there are older rows; continue with --cursor {row}", err=True)
