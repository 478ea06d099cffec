"""The commands that show the record."""

from __future__ import annotations

import click

from receiver import console, providers, settings, shapes
from receiver.cli.group import as_json, limit, store
from receiver.deliveries import State, task_json
from receiver.ingest import announce
from receiver.tasks import Outcome, Status


@click.group(invoke_without_command=True)
@click.option("--status", type=click.Choice([status.value for status in Status]))
@click.option("--provider")
@click.option("--reference")
@limit
@as_json
@click.pass_context
def tasks(
    ctx: click.Context,
    status: str | None,
    provider: str | None,
    reference: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List tasks, newest first; `tasks show TASK` tells everything about one."""
    if ctx.invoked_subcommand:
        return
    wanted = Status(status) if status else None
    found = store().tasks(status=wanted, provider=provider, reference=reference, limit=limit)
    if as_json:
        console.as_json([task_json(task) for task in found])
    else:
        console.show_tasks(found)


@tasks.command()
@click.argument("task")
@as_json
def show(task: str, as_json: bool) -> None:
    """The timeline of one task: every callback, move and attempt."""
    history = store().history(task)
    if as_json:
        console.as_json(shapes.history_json(history))
    else:
        console.show_timeline(history)


@click.command()
@click.option("--task")
@click.option("--outcome", type=click.Choice([outcome.value for outcome in Outcome]))
@limit
@as_json
def callbacks(task: str | None, outcome: str | None, limit: int, as_json: bool) -> None:
    """List what providers said, newest first; `--outcome quarantined`: what was not understood."""
    wanted = Outcome(outcome) if outcome else None
    found = store().callbacks(task_id=task, outcome=wanted, limit=limit)
    if as_json:
        console.as_json([shapes.callback_json(stored) for stored in found])
    else:
        console.show_callbacks(found)


@click.command()
@click.option("--task")
@click.option("--hook")
@click.option("--state", type=click.Choice([state.value for state in State]))
@limit
@as_json
def deliveries(
    task: str | None, hook: str | None, state: str | None, limit: int, as_json: bool
) -> None:
    """List deliveries, newest first; `--state dead`: the dead letters."""
    wanted = State(state) if state else None
    found = store().deliveries(task_id=task, hook=hook, state=wanted, limit=limit)
    if as_json:
        console.as_json([shapes.delivery_json(delivery) for delivery in found])
    else:
        console.show_deliveries(found)


@click.command()
@limit
@as_json
def rejections(limit: int, as_json: bool) -> None:
    """List requests that were refused, newest first: why does no callback arrive?

    The newest 1,000 are kept; a wrong token shows only as "…".
    """
    found = store().rejections(limit)
    if as_json:
        console.as_json([shapes.rejection_json(rejection) for rejection in found])
    else:
        console.show_rejections(found)


@click.command()
@click.option("--provider", required=True, type=click.Choice(sorted(providers.PROVIDERS)))
@click.option("--reference", help="Your own name for it, such as an order number.")
@click.option("--account", default="default", show_default=True)
@as_json
def url(provider: str, reference: str | None, account: str, as_json: bool) -> None:
    """Record a task that you create at the provider yourself, and print its callback URL."""
    if reference is not None and not 1 <= len(reference) <= 1000:
        raise click.BadParameter("use 1 to 1000 characters", param_hint="--reference")
    chosen = settings.load()
    task, where = announce(store(chosen), chosen, provider, reference, account)
    if as_json:
        console.as_json({"task": task_json(task), "callback_url": where})
    else:
        click.echo(where)


COMMANDS = (tasks, callbacks, deliveries, rejections, url)
