"""The commands that erase data."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from receiver import hooks
from receiver.cli.database import settings_and_store
from receiver.cli.group import REFUSED, complain
from receiver.cli.options import DURATION
from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.console import output
from receiver.console.output import plain
from receiver.errors import NotErased, NotFound
from receiver.hooks.base import KeepsFiles
from receiver.maintenance.forget import forget as erase_task
from receiver.maintenance.prune import prune as erase_old
from receiver.processes.current_hooks import entries_for
from receiver.stores import Store
from receiver.text.display import counted

MOST_AT_ONCE = 10_000  # tasks of one reference


@click.command()
@click.option(
    "--older-than", type=DURATION, help="The minimum age, such as 30d. [default: RETENTION]"
)
@click.option("--dead-letters", is_flag=True, help="Include tasks with a dead letter.")
def prune(older_than: int | None, dead_letters: bool) -> None:
    """Erase the payloads of old tasks that have ended, and free the space.

    Bodies, headers, responses, reasons and thumbnails are erased. Tasks, their statuses and
    deliveries stay, so that a repeated old callback is still recognised. Tasks with an unfinished
    delivery are not pruned.

    The exit status is 1 if another program's transaction keeps erased data in the database's files;
    a worker then finishes the erasure.
    """
    chosen, record = settings_and_store()
    seconds = older_than or chosen.retention
    if seconds is None:
        raise click.UsageError("give --older-than, such as 30d, or set RETENTION")
    older_than = now_ms() - seconds * 1000
    if by := record.clocks.set_forward_since(older_than):
        click.echo(
            f"prune: the clock was set forward by {by / 1000:.0f} s; data is kept that much longer",
            err=True,
        )
    callbacks = size = inputs = 0
    unfinished: NotErased | None = None
    with output.progress("erasing messages") as more:
        try:
            for step in erase_old(record, older_than, _keepers(chosen), dead_too=dead_letters):
                callbacks += step.callbacks
                size += step.bytes
                inputs += step.inputs
                more(step.callbacks)
        except NotErased as error:  # raised at the end: all other steps are done
            unfinished = error
    pictures = f"; {counted(inputs, 'thumbnail')} of input pictures" if inputs else ""
    click.echo(f"prune: erased {counted(callbacks, 'message')}, {size / 1e6:.1f} MB{pictures}")
    if unfinished:
        raise unfinished


@click.command()
@click.option("--task", help="Erase the task with this id, which must be complete.")
@click.option("--reference", help="Erase every task with this reference.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_context
def forget(ctx: click.Context, task: str | None, reference: str | None, yes: bool) -> None:
    """Erase the data of a task or of a customer: bodies, names, downloaded files and thumbnails.

    The record keeps the statuses and keys of a forgotten task. The bodies of its later callbacks
    are not stored, and they run no hooks.

    The exit status is 1 if something could not be erased, or if another program's transaction keeps
    it in the database's files; a worker then finishes the erasure.
    """
    if (task is None) is (reference is None):
        raise click.UsageError("give either --task or --reference")
    chosen, record = settings_and_store()
    keepers = _keepers(chosen)
    if task is not None:
        ids = [_complete(record, task)]
    else:
        ids = [row.id for row in record.lists.tasks(reference=reference, limit=MOST_AT_ONCE)]
    if not ids:
        raise click.ClickException(f"no task has the reference {reference!r}")
    if not yes:
        click.confirm(_question(ids, reference), abort=True)
    failures = 0
    for task_id in ids:
        try:
            removed = erase_task(record, task_id, keepers)
        except NotErased as error:  # continue with the others
            complain([str(error)])
            failures += 1
        else:
            click.echo(f"forgot task {task_id}, removed {counted(removed, 'file')}")
    ctx.exit(REFUSED if failures else 0)


def _question(ids: Sequence[str], reference: str | None) -> str:
    whose = "its" if len(ids) == 1 else "their"
    name = plain(reference or ids[0])
    return f"Erase {counted(len(ids), 'task')} ({name}) with {whose} pictures? It cannot be undone."


def _complete(record: Store, task: str) -> str:
    """Return the id if a task has exactly this id. Raises NotFound."""
    try:
        return record.queries.task(task).id
    except NotFound as error:
        raise NotFound(f"{error}; to erase data, give the complete id, or --reference") from None


def _keepers(chosen: Settings) -> list[KeepsFiles]:
    """Return the hooks that store files, which may have files that are not on record.

    Raises SettingsError if the hooks file is invalid, because files could be left behind unnoticed.
    """
    entries = [entry for entry in entries_for(chosen) if hooks.stores_files(entry.type)]
    return hooks.keepers(hooks.build_all(entries, os.environ).values())
