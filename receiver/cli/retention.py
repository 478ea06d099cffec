"""The commands that let something go."""

from __future__ import annotations

import click

from receiver import console, settings
from receiver.cli.group import Duration, store
from receiver.clock import now_ms
from receiver.forget import forget as erase
from receiver.prune import prune as steps_of_pruning

MOST_AT_ONCE = 10_000  # tasks of one reference


@click.command()
@click.option("--older-than", type=Duration(), help="Such as 30d. [default: RETENTION]")
@click.option("--dead-letters", is_flag=True, help="Also of tasks with a dead letter.")
def prune(older_than: int | None, dead_letters: bool) -> None:
    """Erase the payloads of tasks that ended so long ago; give the file's space back.

    Bodies, headers, answers and thumbnails go; tasks, their moves and deliveries stay, so that an
    old callback that comes again is still a duplicate. What is not delivered is not pruned.
    """
    chosen = settings.load()
    seconds = older_than or chosen.retention
    if seconds is None:
        raise click.UsageError("say --older-than, such as 30d, or set RETENTION")
    callbacks = size = inputs = 0
    record, older_than = store(chosen), now_ms() - seconds * 1000
    if by := record.set_forward_since(older_than):
        kept = f"the clock was set forward by {by / 1000:.0f} s; data is kept for as much longer"
        click.echo(f"prune: {kept}", err=True)
    steps = steps_of_pruning(record, older_than, dead_too=dead_letters)
    with console.progress("erasing messages") as more:
        for step in steps:
            callbacks, size = callbacks + step.callbacks, size + step.bytes
            inputs += step.inputs
            more(step.callbacks)
    pictures = f"; {inputs} thumbnails of what was sent" if inputs else ""
    click.echo(f"prune: erased {callbacks} messages, {size / 1e6:.1f} MB{pictures}")


@click.command()
@click.option("--task", help="The task with this id.")
@click.option("--reference", help="Every task of this reference.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
def forget(task: str | None, reference: str | None, yes: bool) -> None:
    """Erase a task, or a customer: bodies, names, downloaded files and thumbnails.

    That a task was there and was forgotten stays, with its statuses and keys; later callbacks of
    it keep no body and fire nothing.
    """
    if (task is None) is (reference is None):
        raise click.UsageError("say --task or --reference")
    record = store()
    found = (
        [task]
        if task
        else [row.id for row in record.tasks(reference=reference, limit=MOST_AT_ONCE)]
    )
    if not found:
        raise click.ClickException(f"no task has the reference {reference!r}")
    if not yes:
        click.confirm(f"Erase {len(found)} task(s) with their pictures, for good?", abort=True)
    for task_id in found:
        click.echo(f"forgot task {task_id}, removed {erase(record, task_id)} file(s)")
