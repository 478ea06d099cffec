"""The command that copies everything into another database."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from receiver.maintenance import copy as copying

REPORT_EVERY = 5.0  # seconds between two lines if standard error is not a terminal


@click.command()
@click.option(
    "--from", "source", required=True, metavar="URL", help="Such as sqlite:///data/receiver.db."
)
@click.option(
    "--to", "target", required=True, metavar="URL", help="An empty database, such as postgresql://…"
)
def copy(source: str, target: str) -> None:
    """Copy everything into an empty database, and compare the two databases.

    Stop web, worker and poller first, because rows that are written during the copy would be
    missing. The target is migrated; the source is not changed. If the copy was interrupted, run the
    same command again: it continues where it stopped.
    """
    steps = copying.copy(source, target)
    shown = _bars(steps) if sys.stderr.isatty() else _lines(steps)
    compared = {step.table: step.rows for step in shown if step.step == "compared"}
    rows = ", ".join(f"{table}: {number}" for table, number in compared.items())
    click.echo(f"copy: {rows or 'the source is empty'}; both databases are the same")


def _bars(steps: Iterable[copying.Progress]) -> Iterator[copying.Progress]:
    """Show a progress bar for each table and step."""
    columns = (TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as bars:
        tasks = {}
        for step in steps:
            name = f"{step.table} {step.step}"
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=step.total)
            bars.update(tasks[name], completed=step.rows)
            yield step


def _lines(steps: Iterable[copying.Progress]) -> Iterator[copying.Progress]:
    """Print a line every few seconds."""
    reported_at = time.monotonic()
    for step in steps:
        if time.monotonic() >= reported_at + REPORT_EVERY:
            reported_at = time.monotonic()
            click.echo(f"copy: {step.rows} of {step.total} {step.table} {step.step}", err=True)
        yield step
