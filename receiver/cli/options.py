"""The options that several commands have, the types of their values, and completion."""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import click

from receiver.clock import now_ms
from receiver.config import durations, hooks_file, settings
from receiver.console.numbers import WholeNumber
from receiver.errors import SettingsError
from receiver.providers import PROVIDERS, status_for
from receiver.stores.sql.database import LAST
from receiver.stores.sql.rows import TimeRange

MOST_DIGITS = 20  # more than a row has; reading a very long number takes long
EXAMPLE = "2026-11-20T08:00:00Z"
Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class Parsed(click.ParamType[int]):
    """The result of a function that raises ValueError with a message for the user."""

    def __init__(self, name: str, parse: Callable[[str], int]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _row(text: str) -> int:
    """Return the number of a row. Raises ValueError."""
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a valid whole number.")
    if not 1 <= int(text[:MOST_DIGITS]) <= LAST:
        raise ValueError(f"{text} is not the number of a row.")
    return int(text)


ROW = Parsed("N", _row)
# Seconds, written as `90s`, `12h`, `30d` or the like.
DURATION = Parsed("DURATION", durations.parse)
# Milliseconds UTC, given in RFC 3339 or as a duration before now.
INSTANT = Parsed("INSTANT", lambda text: durations.moment(text, now_ms()))


class OneOf(click.Choice[str]):
    """A choice of the members of an enumeration, or of some; the command receives the member."""

    def __init__(self, kind: type[StrEnum], *members: StrEnum) -> None:
        super().__init__([member.value for member in members or kind])
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> StrEnum:
        return self._kind(super().convert(value, param, ctx))


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
task_option = click.option(
    "--task", "task_id", metavar="TASK", help="An id, its unique beginning or end, or a reference."
)
dry_run = click.option("--dry-run", is_flag=True, help="Only print the number.")
limit = click.option(
    "--limit",
    default=50,
    show_default=True,
    type=WholeNumber(1, 10_000),
    metavar="N",
    help="Rows per page.",
)


def since(event: str) -> Decorator:
    """Return the option `--since`; `event` is the event that it limits, such as "Created"."""
    return click.option("--since", type=INSTANT, help=f"{event} at or after: 2d, or {EXAMPLE}.")


def until(event: str) -> Decorator:
    return click.option("--until", type=INSTANT, help=f"{event} before.")


def list_of(event: str, span: str) -> Decorator:
    """Return a decorator that adds the options of a list: which tasks, which page, and the format.

    The command receives them as the store's method takes them: the page as `before` and `limit`,
    and the time range of `event` as the argument that `span` names.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_span(*args: Any, since: int | None, until: int | None, **more: Any) -> None:
            command(*args, **{span: TimeRange(since, until)}, **more)

        options = (
            click.option("--provider", type=click.Choice(sorted(PROVIDERS))),
            click.option("--account", help="The account at the provider, such as default."),
            click.option("--reference", help="Your name for the task, such as an order number."),
            since(event),
            until(event),
            limit,
            click.option(
                "--cursor",
                "before",
                type=ROW,
                metavar="N",
                help="Continue after the page that printed this number.",
            ),
            as_json,
        )
        decorated: Callable[..., None] = with_span
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def hook_names(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of hooks with this prefix; none if the hooks file is invalid."""
    try:
        entries = hooks_file.load(settings.hooks_path().path, status_for, PROVIDERS)
    except SettingsError:
        return []
    return [entry.name for entry in entries if entry.name.startswith(incomplete)]
