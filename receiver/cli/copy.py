"""The command that moves a grown record into another database."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from receiver.maintenance.copy import copy as steps_of_copying


@click.command()
@click.option("--from", "source", required=True, metavar="URL", help="sqlite:///data/receiver.db")
@click.option("--to", "target", required=True, metavar="URL", help="postgresql://…, and empty.")
def copy(source: str, target: str) -> None:
    """Copy the whole record into an empty database, and compare the two.

    Stop web, worker and poller first: what is written meanwhile would be missing. The target is
    migrated; nothing is changed at the source.
    """
    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn())
    shown = Console(file=sys.stderr)
    copied: dict[str, int] = {}
    with Progress(*columns, console=shown, disable=not sys.stderr.isatty()) as bars:
        tasks = {}
        for step in steps_of_copying(source, target):
            if step.table not in tasks:
                tasks[step.table] = bars.add_task(step.table, total=step.total)
            bars.update(tasks[step.table], completed=step.rows)
            copied[step.table] = step.rows
    told = ", ".join(f"{rows} {table}" for table, rows in copied.items()) or "nothing was there"
    click.echo(f"copy: {told}; both are the same")
