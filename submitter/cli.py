"""The `submitter` command: exit status 0 done, 1 refused or failed, 2 usage, 130 interrupted."""

from __future__ import annotations

import click

from receiver import __version__
from receiver.console import completion
from receiver.errors import NotFound
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter import reconcile, report
from submitter.batch_command import batch
from submitter.console import (
    REFUSED,
    Commands,
    account,
    as_json,
    complain,
    model,
    print_json,
    print_lines,
    print_page,
    provider,
)
from submitter.costs_command import costs
from submitter.desk import Desk
from submitter.doctor_command import doctor_
from submitter.errors import ProviderError, SubmitterError
from submitter.follow import Follower, wait_for_downloads
from submitter.orders import prepare
from submitter.progress import Show, shown
from submitter.providers import Provider, open_provider
from submitter.reconcile_command import reconcile as reconcile_command
from submitter.record import Record, opened, opened_with

ALL = 1_000_000


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Create virtual try-on tasks at a provider, and see how they stand.

    Settings come from the environment; see .env.example.
    """


main.add_command(batch)
main.add_command(reconcile_command)
main.add_command(costs)
main.add_command(doctor_)
main.add_command(completion.command("submitter"))


@main.command()
@provider
@click.option("--human", required=True, metavar="PATH|URL", help="The person: JPEG or PNG.")
@click.option(
    "--cloth",
    required=True,
    multiple=True,
    metavar="PATH|URL",
    help="The garment: JPEG or PNG. Two, as upper:PATH and lower:PATH, become one picture.",
)
@click.option("--reference", help="Your own name for it, such as an order number.")
@model
@account
@click.option("--wait", is_flag=True, help="Wait until the task has ended.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
@as_json
@click.pass_context
def submit(
    ctx: click.Context,
    provider: str,
    human: str,
    cloth: tuple[str, ...],
    reference: str | None,
    model: str | None,
    account: str,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Submit one try-on."""
    with opened_with(provider, account) as (record, room):
        order = prepare(room, human, cloth, reference, model)
        desk = Desk(record.ingest, room, record.settings, account)
        with shown("submitting") as show:
            task = desk.put_on_record(order)
            show.task(task)
            try:
                task = desk.send(task, order)
                if wait:
                    task = _wait(record, room, task, timeout, show)
            except ProviderError:
                if as_json:
                    _print_task(record.store, task, as_json)
                raise
        _print_task(record.store, task, as_json)
    if wait and not task.status.is_terminal:
        late = f"task {task.id} has not ended within {timeout:g} s; it goes on"
        complain([f"{late}, see: submitter status {task.id}"])
        ctx.exit(REFUSED)
    ctx.exit(REFUSED if task.status is Status.FAILED else 0)


@main.command()
@click.argument("task")
@as_json
def status(task: str, as_json: bool) -> None:
    """Show a task, by our id or the provider's; the provider is asked while it is open."""
    with opened() as record:
        found = _find(record.store, task)
        problem = None
        if not found.status.is_terminal:
            problem = _asked(record, found)
        _print_task(record.store, found, as_json)
    if problem is not None:
        raise problem


@main.command("list")
@provider
@account
@click.option("--page", default=1, show_default=True, metavar="N")
@click.option("--page-size", default=30, show_default=True, metavar="N")
@as_json
def list_(provider: str, account: str, page: int, page_size: int, as_json: bool) -> None:
    """Show the provider's own list of tasks, newest first."""
    found = open_provider(provider, account).list(page, page_size)
    if as_json:
        print_json(report.page_document(found))
    else:
        print_page(found)


def _wait(record: Record, room: Provider, task: Task, timeout: float, show: Show) -> Task:
    task = Follower(record, room, show.task, show.note).follow(task, timeout)
    if task.status is Status.SUCCEEDED:
        wait_for_downloads(record.store, record.downloads, task)
    return task


def _asked(record: Record, task: Task) -> SubmitterError | None:
    """Ask the provider; what stood in the way, because the record is worth showing all the same."""
    try:
        reconcile.ask(record.ingest, open_provider(task.provider, task.account), task)
    except SubmitterError as error:
        return error
    return None


def _find(store: Store, text: str) -> Task:
    try:
        return store.queries.task(text)
    except NotFound:
        named = (
            task
            for task in store.lists.tasks(limit=ALL)
            if text in (task.provider_task_id, task.callback_task_id)
        )
        found = next(named, None)
    if found is None:
        raise NotFound(f"no task {text}, neither by our id nor by the provider's")
    return found


def _print_task(store: Store, task: Task, as_json: bool) -> None:
    history = store.queries.history(task.id)
    if as_json:
        print_json(report.document(history))
    else:
        print_lines(report.lines(history))
