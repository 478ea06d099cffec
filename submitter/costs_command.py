"""The `submitter costs` command."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from receiver.clock import now_ms
from receiver.config import durations
from receiver.stores.sql.rows import TimeRange
from submitter.console import as_json, complain, print_json
from submitter.costs import BY, Line, Sum, charges
from submitter.providers import PROVIDERS
from submitter.record import opened
from submitter.wording import readable


def _instant(_: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else durations.moment(value, now_ms())
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None


@click.command("costs")
@click.option("--by", type=click.Choice(list(BY)), default="month", show_default=True)
@click.option("--provider", type=click.Choice(list(PROVIDERS)))
@click.option("--account", metavar="NAME", help="Only tasks of this account.")
@click.option("--since", callback=_instant, help="Created since: 30d, or 2026-11-01T00:00:00Z.")
@click.option("--until", callback=_instant, help="And before.")
@as_json
def costs(
    by: str,
    provider: str | None,
    account: str | None,
    since: int | None,
    until: int | None,
    as_json: bool,
) -> None:
    """Add up what the providers said they charged, one line for each unit.

    Months are in UTC, by the creation of the task. A provider that states no cost does
    not show.
    """
    total = Sum(by)
    with opened() as record:
        span = TimeRange(since, until)
        for charge in charges(record.store, span, provider=provider, account=account):
            total.add(charge)
    if as_json:
        lines = [line.as_json(by) for line in total.lines()]
        print_json({"by": by, "costs": lines, "not_numbers": total.odd})
    else:
        _print(by, total.lines())
    if total.odd:
        complain([f"{total.odd} task(s) are left out: what they cost is no decimal number"])


def _print(by: str, lines: list[Line]) -> None:
    """A table for people; a line each, separated by tabs, for other programs."""
    if not sys.stdout.isatty():
        for line in lines:
            click.echo("\t".join(readable(text, 1000) for text in line.row()))
        return
    table = Table(by, "provider", "unit")
    for heading in ("tasks", "cost"):
        table.add_column(heading, justify="right")
    for line in lines:
        table.add_row(*(Text(readable(text, 1000)) for text in line.row()))
    Console().print(table if lines else "No provider told a cost.")
