"""The commands `submitter submit`, `submitter status` and `submitter list`."""

from __future__ import annotations

import click

from receiver.errors import NotFound
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter.cli import report
from submitter.cli.group import EXIT_FAILED, account, as_json, model, print_errors, provider
from submitter.cli.progress import task_progress
from submitter.errors import ProviderError, SubmitterError
from submitter.follow import Follower, wait_for_downloads
from submitter.pictures.inputs import prepare_inputs
from submitter.providers import open_provider
from submitter.queries import query
from submitter.session import Session, open_session, open_session_with
from submitter.task_creation import TaskCreator

ALL = 1_000_000


@click.command("submit")
@provider
@click.option("--human", required=True, metavar="PATH|URL", help="The person: JPEG or PNG.")
@click.option(
    "--cloth",
    required=True,
    multiple=True,
    metavar="PATH|URL",
    help="The garment: JPEG or PNG. Give upper:PATH and lower:PATH to merge two garments.",
)
@click.option("--reference", help="Your own name for the task, such as an order number.")
@model
@account
@click.option("--wait", is_flag=True, help="Wait until the task has ended.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="The longest time to wait.",
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
    with open_session_with(provider, account) as (session, adapter):
        inputs = prepare_inputs(adapter, human, cloth, reference, model)
        creator = TaskCreator(session.ingest, adapter, session.settings, account)
        with task_progress("submitting") as display:
            task = creator.record_task(inputs)
            display.show_task(task)
            try:
                task = creator.send(task, inputs)
                if wait:
                    follower = Follower(session, adapter, display.show_task, display.show_line)
                    task = follower.follow(task, timeout)
            except ProviderError:
                if as_json:
                    report.print_task(session.store, task, as_json)
                raise
            if wait and task.status is Status.SUCCEEDED:
                wait_for_downloads(session.store, session.download_hooks, task)
        report.print_task(session.store, task, as_json)
    if wait and not task.status.is_terminal:
        problem = f"task {task.id} has not ended within {timeout:g} s and continues"
        print_errors([f"{problem}; see: submitter status {task.id}"])
        ctx.exit(EXIT_FAILED)
    ctx.exit(EXIT_FAILED if task.status is Status.FAILED else 0)


@click.command("status")
@click.argument("task")
@as_json
def status(task: str, as_json: bool) -> None:
    """Show a task, by our id or the provider's; query the provider if it has not ended."""
    with open_session() as session:
        found = _find(session.store, task)
        problem = None if found.status.is_terminal else _query(session, found)
        report.print_task(session.store, found, as_json)
    if problem is not None:
        raise problem


@click.command("list")
@provider
@account
@click.option("--page", default=1, show_default=True, metavar="N")
@click.option("--page-size", default=30, show_default=True, metavar="N")
@as_json
def list_(provider: str, account: str, page: int, page_size: int, as_json: bool) -> None:
    """Show the provider's own list of tasks, newest first."""
    report.print_page(open_provider(provider, account).list(page, page_size), as_json)


def _query(session: Session, task: Task) -> SubmitterError | None:
    """Query the provider; return the error, so that the record can be shown first."""
    try:
        query(session.ingest, open_provider(task.provider, task.account), task)
    except SubmitterError as error:
        return error
    return None


def _find(store: Store, task_id: str) -> Task:
    try:
        return store.queries.task(task_id)
    except NotFound:
        for task in store.lists.tasks(limit=ALL):
            if task_id in (task.provider_task_id, task.callback_task_id):
                return task
    raise NotFound(f"no task has the id {task_id}, neither ours nor the provider's")
