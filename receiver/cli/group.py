"""What the commands share: errors as lines for people, options, and the types of their values."""

from __future__ import annotations

import functools
import os
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from importlib import import_module
from typing import Any

import click

from receiver.clock import now_ms
from receiver.config import durations, hooks_file, settings
from receiver.config.hooks_file import HooksPath
from receiver.console import terminal
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.ingest import hook_entries
from receiver.processes.clock_watch import ClockWatch
from receiver.providers import PROVIDERS, status_for
from receiver.stores import Store, check_schema_when_reachable, open_store
from receiver.stores.sql.metrics import without_hook
from receiver.stores.sql.rows import TimeRange
from receiver.text.display import plain_lines

USAGE, REFUSED = 2, 1
EXAMPLE = "2026-11-20T08:00:00Z"
ROW = click.IntRange(1, 2**63 - 1)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit = click.option("--limit", default=50, type=click.IntRange(1, 10_000), help="At most N rows.")


cursor = click.option(
    "--cursor", type=ROW, metavar="N", help="Begin after the page that printed this number."
)


def of_tasks(time: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options that narrow a list down to some tasks, and to a `span` of `time`."""

    def narrowed(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_span(*args: Any, since: int | None, until: int | None, **more: Any) -> None:
            command(*args, span=TimeRange(since, until), **more)

        options = (
            click.option("--provider", type=click.Choice(sorted(PROVIDERS))),
            click.option("--account", help="Of the provider; the first one is called default."),
            click.option("--reference", help="Your own name of the task, such as an order number."),
            click.option("--since", type=InstantType(), help=f"{time} since: 2d, or {EXAMPLE}."),
            click.option("--until", type=InstantType(), help="And before."),
        )
        for option in reversed(options):
            with_span = option(with_span)
        return with_span

    return narrowed


def hook_names(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """What a shell may complete the name of a hook to; nothing if the hooks file is wrong."""
    named = HooksPath.named(os.environ.get("HOOKS_FILE"))
    try:
        entries = hooks_file.load(named.path, status_for, PROVIDERS)
    except SettingsError:
        return []
    return [entry.name for entry in entries if entry.name.startswith(begun)]


def tell_next(row: int | None) -> None:
    """Say on standard error how to go on; standard output is for the rows."""
    if row is not None:
        click.echo(f"there are older ones: --cursor {row}", err=True)


class ImportedCommands(MutableMapping[str, click.Command]):
    """The commands of a group, each imported from its module when it is first used.

    Imports are most of what a short command costs. `places` has `module:attribute` for each name,
    the module as named within `package`.
    """

    def __init__(self, package: str, places: Mapping[str, str]) -> None:
        self._package = package
        self._places: dict[str, str | click.Command] = dict(places)

    def __getitem__(self, name: str) -> click.Command:
        place = self._places[name]
        if isinstance(place, str):
            module, _, attribute = place.partition(":")
            place = getattr(import_module(f"{self._package}.{module}"), attribute)
            self._places[name] = place
        return place

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._places[name] = command

    def __delitem__(self, name: str) -> None:
        del self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def names_in_hooks_file(chosen: settings.Settings) -> list[str] | None:
    """The names of the hooks; None, and the mistakes on standard error, if the file is wrong."""
    try:
        return [entry.name for entry in hook_entries(chosen)]
    except SettingsError as error:
        complain(error.problems)
        return None


def say_which_hooks_are_missing(record: Store, names: Collection[str]) -> None:
    """Say on standard error which deliveries wait, because their hook is not in the hooks file."""
    complain(
        f"deliveries that wait, because the hook {hook} is not in the hooks file: {number}; add it "
        f"and send SIGHUP, or drop them: receiver endpoints drop {hook}"
        for hook, number in without_hook(record.metrics.delivery_counts(), names).items()
    )


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


class DurationType(click.ParamType[int]):
    """Seconds, from `90s`, `12h`, `30d` and the like."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else durations.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class InstantType(click.ParamType[int]):
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
    """The record, in the schema that this code wants; closed when the running command ends.

    Raises SettingsError, StoreError.
    """
    from receiver.console import output  # noqa: PLC0415 - its tables take long to import
    from receiver.ingest import known_secrets  # noqa: PLC0415 - neither does every command need it
    from receiver.text.display import hiding_values  # noqa: PLC0415

    chosen = chosen or settings.load(creates_secret=False)
    found = _opened(chosen)
    context = click.get_current_context()
    output.hide_secrets(hiding_values(known_secrets(chosen)))
    context.call_on_close(lambda: output.hide_secrets(str))
    found.check_schema()
    ClockWatch(found).follow()
    return found


def store_when_reachable(chosen: settings.Settings) -> Store:
    """The record, as `store`, for a process: it waits for a database server that is down."""
    found = _opened(chosen)
    check_schema_when_reachable(found)
    return found


def _opened(chosen: settings.Settings | None) -> Store:
    found = open_store((chosen or settings.load(creates_secret=False)).database_url)
    click.get_current_context().call_on_close(found.close)
    return found


def complain(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"receiver: {plain_lines(line)}", err=True)
