"""The command that creates the database, or brings it up to date."""

from __future__ import annotations

from contextlib import closing

import click

from receiver.config import settings
from receiver.stores import open_store, when_reachable

FEW = 4  # migrations, whose names fit on one line


@click.command()
@click.option("--wait", is_flag=True, help="Wait for a database server that is down.")
def migrate(wait: bool) -> None:
    """Bring the database up to this release. Safe to run twice, even concurrently."""
    with closing(open_store(settings.load().database_url)) as record:
        applied = when_reachable(record.migrate) if wait else record.migrate()
        pooler = record.database.pooler()
    names = ", ".join(applied) if len(applied) < FEW else f"{applied[0]} to {applied[-1]}"
    click.echo(f"migrate: applied {names}" if applied else "migrate: up to date")
    for sentence in pooler or ():
        click.echo(f"migrate: {sentence}", err=True)
