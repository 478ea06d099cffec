"""The commands that list records, and the one that prints a callback URL."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from receiver.cli.database import check_hook, names_in_hooks_file, settings_and_store, store
from receiver.cli.options import OneOf, as_json, hook_names, limit, list_of, task_option
from receiver.clock import now_ms
from receiver.console import output
from receiver.console import records as tables
from receiver.console.find_task import find_task
from receiver.console.program import SummarizedGroup
from receiver.deliveries import State, task_json
from receiver.providers import PROVIDERS
from receiver.serializers import records
from receiver.stores import Store
from receiver.stores.sql.lists import Lists
from receiver.tasks import Outcome, Status


@click.group(cls=SummarizedGroup, invoke_without_command=True)
@click.option("--status", type=OneOf(Status))
@list_of("Created", span="created")
@click.pass_context
def tasks(ctx: click.Context, /, as_json: bool, **selection: Any) -> None:
    """List tasks, newest first; `tasks show TASK` shows the timeline of one task."""
    if ctx.invoked_subcommand:
        return
    page = store().lists.page_of_tasks(**selection)
    output.show_rows(page.rows, task_json, tables.show_tasks, is_json=as_json, cursor=page.next)


@tasks.command()
@click.argument("task")
@as_json
def show(task: str, as_json: bool) -> None:
    """Show the timeline of a task: every status, callback and attempt.

    TASK is an id, its beginning or end if no other id has it, or a reference.
    """
    chosen, record = settings_and_store()
    history = record.queries.history(find_task(record, task).id)
    if as_json:
        output.as_json(records.history_json(history, names_in_hooks_file(chosen)))
    else:
        tables.show_timeline(history)


@click.command()
@task_option
@click.option("--outcome", type=OneOf(Outcome))
@list_of("Received", span="received")
def callbacks(as_json: bool, **selection: Any) -> None:
    """List callbacks and responses to queries, newest first.

    `--outcome quarantined` lists those that could not be interpreted.
    """
    page = _selected(store(), selection).page_of_callbacks(**selection)
    to_json, show = records.callback_json, tables.show_callbacks
    output.show_rows(page.rows, to_json, show, is_json=as_json, cursor=page.next)


@click.command()
@task_option
@click.option("--hook", shell_complete=hook_names, help="The name of the hook.")
@click.option("--state", type=OneOf(State))
@list_of("The status was recorded", span="moved")
def deliveries(as_json: bool, **selection: Any) -> None:
    """List deliveries, newest first; `--state dead` lists the dead letters."""
    chosen, record = settings_and_store()
    hooks = names_in_hooks_file(chosen)
    check_hook(record, hooks, selection["hook"])
    page = _selected(record, selection).page_of_deliveries(**selection)
    to_json = partial(records.delivery_json, hooks=hooks)
    show = partial(tables.show_deliveries, now=now_ms(), hooks=hooks)
    output.show_rows(page.rows, to_json, show, is_json=as_json, cursor=page.next)


def _selected(record: Store, selection: dict[str, Any]) -> Lists:
    """Return the lists; replace the value of `--task` with the complete id."""
    if selection["task_id"] is not None:
        selection["task_id"] = find_task(record, selection["task_id"]).id
    return record.lists


@click.command()
@limit
@as_json
def rejections(limit: int, as_json: bool) -> None:
    """List rejected requests, newest first, to find out why callbacks do not arrive.

    The newest 1,000 are kept. A wrong token is shown as "…".
    """
    rows = store().activity.rejections(limit)
    output.show_rows(rows, records.rejection_json, tables.show_rejections, is_json=as_json)


@click.command()
@click.option("--provider", required=True, type=click.Choice(sorted(PROVIDERS)))
@click.option("--reference", help="Your name for the task, such as an order number.")
@click.option(
    "--account", default="default", show_default=True, help="The account at the provider."
)
@as_json
def url(provider: str, reference: str | None, account: str, as_json: bool) -> None:
    """Record a task that your own code creates at the provider, and print its callback URL."""
    from receiver.ingest import announce  # noqa: PLC0415 - a slow import that lists do not need

    reference = reference.strip() if reference is not None else None
    if reference is not None and not (1 <= len(reference) <= 1000 and reference.isprintable()):
        raise click.BadParameter("use 1 to 1000 printable characters", param_hint="--reference")
    chosen, record = settings_and_store()
    task, callback_url = announce(record, chosen, provider, reference, account)
    if as_json:
        output.as_json({"task": task_json(task), "callback_url": callback_url})
    else:
        click.echo(callback_url)
