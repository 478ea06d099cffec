"""The command that copies everything into another database."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from receiver.maintenance.copy import copy as copy_rows


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
    missing. The target is migrated; the source is not changed.
    """
    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn())
    copied: dict[str, int] = {}
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bars:
        tasks = {}
        for step in copy_rows(source, target):
            if step.table not in tasks:
                tasks[step.table] = bars.add_task(step.table, total=step.total)
            bars.update(tasks[step.table], completed=step.rows)
            copied[step.table] = step.rows
    rows = ", ".join(f"{table}: {number}" for table, number in copied.items())
    click.echo(f"copy: {rows or 'the source is empty'}; both databases are the same")
