"""The commands that let something go."""

from __future__ import annotations

import os

import click

from receiver import hooks
from receiver.cli.group import REFUSED, DurationType, complain, store
from receiver.clock import now_ms
from receiver.config import settings
from receiver.console import output
from receiver.errors import NotErased
from receiver.hooks.base import KeepsFiles
from receiver.ingest import hook_entries
from receiver.maintenance.forget import forget as erase
from receiver.maintenance.prune import prune as steps_of_pruning

MOST_AT_ONCE = 10_000  # tasks of one reference


@click.command()
@click.option("--older-than", type=DurationType(), help="Such as 30d. [default: RETENTION]")
@click.option("--dead-letters", is_flag=True, help="Also of tasks with a dead letter.")
def prune(older_than: int | None, dead_letters: bool) -> None:
    """Erase the payloads of tasks that ended longer ago than this, and free the space.

    Bodies, headers, answers, reasons and thumbnails are erased. Tasks, their moves and deliveries
    stay, so that an old callback that comes again is still a duplicate. Tasks with an undelivered
    delivery are not pruned.

    Status 1 if a reader keeps erased data in the database's files; a worker finishes the erasure.
    """
    chosen = settings.load(creates_secret=False)
    seconds = older_than or chosen.retention
    if seconds is None:
        raise click.UsageError("give --older-than, such as 30d, or set RETENTION")
    callbacks = size = inputs = 0
    record, older_than = store(chosen), now_ms() - seconds * 1000
    if by := record.clocks.set_forward_since(older_than):
        kept = f"the clock was set forward by {by / 1000:.0f} s; data is kept that much longer"
        click.echo(f"prune: {kept}", err=True)
    steps = steps_of_pruning(record, older_than, _keepers(chosen), dead_too=dead_letters)
    unfinished: NotErased | None = None
    with output.progress("erasing messages") as more:
        try:
            for step in steps:
                callbacks, size = callbacks + step.callbacks, size + step.bytes
                inputs += step.inputs
                more(step.callbacks)
        except NotErased as error:  # of the last step: everything else was done
            unfinished = error
    pictures = f"; {inputs} thumbnails of what was sent" if inputs else ""
    click.echo(f"prune: erased {callbacks} messages, {size / 1e6:.1f} MB{pictures}")
    if unfinished:
        raise unfinished


@click.command()
@click.option("--task", help="The task with this id.")
@click.option("--reference", help="Every task of this reference.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.pass_context
def forget(ctx: click.Context, task: str | None, reference: str | None, yes: bool) -> None:
    """Erase a task, or a customer: bodies, names, downloaded files and thumbnails.

    That a task was there and was forgotten stays, with its statuses and keys; later callbacks of
    it keep no body and fire nothing.

    Status 1 if something could not be erased, or if a reader still keeps it in the database's
    files; a worker finishes the erasure then.
    """
    if (task is None) is (reference is None):
        raise click.UsageError("say --task or --reference")
    chosen = settings.load(creates_secret=False)
    record = store(chosen)
    keepers = _keepers(chosen)
    found = (
        [task]
        if task
        else [row.id for row in record.lists.tasks(reference=reference, limit=MOST_AT_ONCE)]
    )
    if not found:
        raise click.ClickException(f"no task has the reference {reference!r}")
    if not yes:
        click.confirm(f"Erase {len(found)} task(s) with their pictures, for good?", abort=True)
    failures = 0
    for task_id in found:
        try:
            removed = erase(record, task_id, keepers)
        except NotErased as error:  # the others are erased all the same
            complain([str(error)])
            failures += 1
        else:
            click.echo(f"forgot task {task_id}, removed {removed} file(s)")
    ctx.exit(REFUSED if failures else 0)


def _keepers(chosen: settings.Settings) -> list[KeepsFiles]:
    """Build the hooks that store files, which may have files that are not on record.

    Raises SettingsError: with a mistake in the hooks file, files could be left behind unnoticed.
    """
    entries = [entry for entry in hook_entries(chosen) if hooks.stores_files(entry.type)]
    return hooks.keepers(hooks.build_all(entries, os.environ).values())
