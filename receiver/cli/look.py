"""The commands that show the record."""

from __future__ import annotations

import click

from receiver import providers
from receiver.cli.group import (
    as_json,
    cursor,
    hook_names,
    limit,
    names_in_hooks_file,
    of_tasks,
    store,
    tell_next,
)
from receiver.clock import now_ms
from receiver.config import settings
from receiver.console import output
from receiver.deliveries import State, task_json
from receiver.ingest import announce
from receiver.serializers import records
from receiver.stores.sql.rows import TimeRange
from receiver.tasks import Outcome, Status


@click.group(invoke_without_command=True)
@click.option("--status", type=click.Choice([status.value for status in Status]))
@of_tasks("Created")
@limit
@cursor
@as_json
@click.pass_context
def tasks(
    ctx: click.Context,
    /,
    status: str | None,
    limit: int,
    cursor: int | None,
    as_json: bool,
    span: TimeRange,
    **of_task: str | None,
) -> None:
    """List tasks, newest first; `tasks show TASK` tells everything about one."""
    if ctx.invoked_subcommand:
        return
    wanted = Status(status) if status else None
    page = store().lists.page_of_tasks(
        before=cursor, limit=limit, status=wanted, created=span, **of_task
    )
    if as_json:
        output.as_json([task_json(task) for task in page.rows])
    else:
        output.show_tasks(page.rows)
    tell_next(page.next)


@tasks.command()
@click.argument("task")
@as_json
def show(task: str, as_json: bool) -> None:
    """The timeline of one task: every callback, move and attempt."""
    chosen = settings.load(creates_secret=False)
    history = store(chosen).queries.history(task)
    if as_json:
        output.as_json(records.history_json(history, names_in_hooks_file(chosen)))
    else:
        output.show_timeline(history)


@click.command()
@click.option("--task")
@click.option("--outcome", type=click.Choice([outcome.value for outcome in Outcome]))
@of_tasks("Received")
@limit
@cursor
@as_json
def callbacks(
    task: str | None,
    outcome: str | None,
    limit: int,
    cursor: int | None,
    as_json: bool,
    span: TimeRange,
    **of_task: str | None,
) -> None:
    """List what providers said, newest first; `--outcome quarantined`: what was not understood."""
    wanted = Outcome(outcome) if outcome else None
    page = store().lists.page_of_callbacks(
        before=cursor, limit=limit, task_id=task, outcome=wanted, received=span, **of_task
    )
    if as_json:
        output.as_json([records.callback_json(stored) for stored in page.rows])
    else:
        output.show_callbacks(page.rows)
    tell_next(page.next)


@click.command()
@click.option("--task")
@click.option("--hook", shell_complete=hook_names)
@click.option("--state", type=click.Choice([state.value for state in State]))
@of_tasks("Of moves recorded")
@limit
@cursor
@as_json
def deliveries(
    task: str | None,
    hook: str | None,
    state: str | None,
    limit: int,
    cursor: int | None,
    as_json: bool,
    span: TimeRange,
    **of_task: str | None,
) -> None:
    """List deliveries, newest first; `--state dead`: the dead letters."""
    wanted = State(state) if state else None
    chosen = settings.load(creates_secret=False)
    hooks = names_in_hooks_file(chosen)
    page = store(chosen).lists.page_of_deliveries(
        before=cursor, limit=limit, task_id=task, hook=hook, state=wanted, moved=span, **of_task
    )
    if as_json:
        output.as_json([records.delivery_json(delivery, hooks) for delivery in page.rows])
    else:
        output.show_deliveries(page.rows, now_ms(), hooks)
    tell_next(page.next)


@click.command()
@limit
@as_json
def rejections(limit: int, as_json: bool) -> None:
    """List requests that were refused, newest first: why does no callback arrive?

    The newest 1,000 are kept; a wrong token shows only as "…".
    """
    found = store().activity.rejections(limit)
    if as_json:
        output.as_json([records.rejection_json(rejection) for rejection in found])
    else:
        output.show_rejections(found)


@click.command()
@click.option("--provider", required=True, type=click.Choice(sorted(providers.PROVIDERS)))
@click.option("--reference", help="Your own name for it, such as an order number.")
@click.option("--account", default="default", show_default=True)
@as_json
def url(provider: str, reference: str | None, account: str, as_json: bool) -> None:
    """Record a task that you create at the provider yourself, and print its callback URL."""
    if reference is not None and not 1 <= len(reference) <= 1000:
        raise click.BadParameter("use 1 to 1000 characters", param_hint="--reference")
    chosen = settings.load(creates_secret=False)
    task, where = announce(store(chosen), chosen, provider, reference, account)
    if as_json:
        output.as_json({"task": task_json(task), "callback_url": where})
    else:
        click.echo(where)
