"""The commands `submitter submit`, `submitter status` and `submitter list`, and their output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from receiver.clock import now_ms
from receiver.console import output
from receiver.console.find_task import find_task
from receiver.deliveries import Notice
from receiver.serializers.outputs import files_of_history, media_of_history
from receiver.stores import Store
from receiver.stores.sql.queries import TaskHistory
from receiver.tasks import Status, Task
from receiver.text.display import elapsed, json_readable, redacted, rfc3339
from submitter.cli.group import EXIT_FAILED, print_errors, print_json, print_lines
from submitter.cli.options import account, as_json, metadata, model, provider
from submitter.cli.progress import task_progress
from submitter.errors import ProviderError, SubmitterError
from submitter.follow import Follower, wait_for_downloads
from submitter.pictures.inputs import prepare_inputs
from submitter.providers import open_provider
from submitter.providers.base import ListedTask, Page
from submitter.queries import query
from submitter.session import Session, open_session, open_session_with
from submitter.task_creation import TaskCreator, check_once, open_or_recent
from submitter.text import readable

LONGEST_URL = 4096  # characters to show; recorded URLs have up to about 1,000


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
@click.option(
    "--once", is_flag=True, help="Refuse if a task with this reference was submitted before."
)
@metadata
@model
@account
@click.option("--wait", is_flag=True, help="Wait until the task has ended.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="The maximum time to wait.",
)
@as_json
@click.pass_context
def submit(
    ctx: click.Context,
    provider: str,
    human: str,
    cloth: tuple[str, ...],
    reference: str | None,
    once: bool,
    metadata: dict[str, Any],
    model: str | None,
    account: str,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Submit one try-on.

    A warning is printed if a task with the same reference is open or was created in the last day.
    """
    if once:
        check_once(reference)
    with open_session_with(provider, account) as (session, adapter):
        inputs = prepare_inputs(adapter, human, cloth, reference, model, metadata=metadata)
        creator = TaskCreator(session.ingest, adapter, session.settings, account)
        if not once:
            _warn_of_earlier(session.store, reference)
        with task_progress("submitting") as display:
            task = creator.record_once(inputs) if once else creator.record_task(inputs)
            display.show_task(task)
            try:
                task = creator.send(task, inputs)
                if wait:
                    follower = Follower(session, adapter, display.show_task, display.show_line)
                    task = follower.follow(task, timeout)
            except ProviderError:
                if as_json:
                    print_task(session.store, task, as_json)
                raise
            if wait and task.status is Status.SUCCEEDED:
                wait_for_downloads(session.store, session.download_hooks, task)
        print_task(session.store, task, as_json)
    if wait and not task.status.is_terminal:
        problem = f"task {task.id} has not ended within {timeout:g} s and continues"
        print_errors([f"{problem}; see: submitter status {task.id}"])
        ctx.exit(EXIT_FAILED)
    ctx.exit(EXIT_FAILED if task.status is Status.FAILED else 0)


def _warn_of_earlier(store: Store, reference: str | None) -> None:
    earlier = None if reference is None else open_or_recent(store, reference)
    if earlier is not None:
        age = elapsed(now_ms() - earlier.created_at)
        problem = (
            f"warning: task {earlier.id} ({earlier.status}), created {age} ago, has the same "
            "reference; with --once, this task would not be submitted"
        )
        print_errors([problem])


@click.command("status")
@click.argument("task")
@as_json
def status(task: str, as_json: bool) -> None:
    """Show a task; query the provider first if it has not ended.

    TASK is our id, a unique beginning or end of it, the provider's id, or a reference.
    """
    with open_session() as session:
        found = find_task(session.store, task)
        problem = None if found.status.is_terminal else _query(session, found)
        print_task(session.store, found, as_json)
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
    print_page(open_provider(provider, account).list(page, page_size), as_json)


def _query(session: Session, task: Task) -> SubmitterError | None:
    """Query the provider; return the error, so that the record can be shown first."""
    try:
        query(session.ingest, open_provider(task.provider, task.account), task)
    except SubmitterError as error:
        return error
    return None


def print_task(store: Store, task: Task, as_json: bool) -> None:
    history = store.queries.history(task.id)
    if as_json:
        print_json(task_document(history))
    else:
        print_lines(task_lines(history))


def print_page(page: Page, as_json: bool) -> None:
    if as_json:
        tasks = [asdict(task) | {"created_at": _created_at(task)} for task in page.tasks]
        print_json({"page": page.number, "page_size": page.size, "tasks": tasks})
    else:
        columns = ("its id", "our id", "status", "created", "result")
        output.show_table(columns, map(page_row, page.tasks), "No tasks.", ids=("our id",))


def task_document(history: TaskHistory) -> dict[str, Any]:
    """Return the members `task` and `media` of the event that hooks receive."""
    event = _notice(history).as_json()
    return {"task": event["task"], "media": event["media"]}


def task_lines(history: TaskHistory) -> Iterator[str]:
    """Yield one line per fact about the task."""
    notice = _notice(history)
    task = history.task
    yield f"task       {task.id}"
    if task.reference:
        yield f"reference  {readable(task.reference)}"
    provider_id = f", provider id {readable(task.id_at_provider)}" if task.id_at_provider else ""
    yield f"provider   {task.provider} (account {task.account}){provider_id}"
    yield f"status     {task.status}, since {rfc3339(task.updated_at)}"
    if task.reason:
        yield f"reason     {readable(task.reason)}"
    if task.metadata:
        yield f"metadata   {readable(redacted(json_readable(dict(task.metadata), indent=None)))}"
    if task.cost:
        yield f"cost       {readable(task.cost)} {readable(task.cost_unit)}".rstrip()
    if task.mismatched_at is not None:
        yield (
            "mismatch   a message named another provider task and changed nothing; see: "
            f"receiver tasks show {task.id}"
        )
    for media in notice.media:
        file = notice.file_of(media)
        expires = f" (until {rfc3339(media.expires_at)})" if media.expires_at else ""
        location = file.url if file else readable(media.url, LONGEST_URL) + expires
        yield f"{media.kind:<9}  {location}"


def _created_at(task: ListedTask) -> str | None:
    return None if task.created_at is None else rfc3339(task.created_at)


def page_row(task: ListedTask) -> tuple[str, str, str, str, str]:
    """Return the provider's id, our id, the status, the time of creation, and URLs or a reason."""
    return (
        task.provider_task_id,
        task.external_task_id or "",
        task.status,
        _created_at(task) or "",
        " ".join(task.urls) or task.reason or "",
    )


def _notice(history: TaskHistory) -> Notice:
    media, files = media_of_history(history), files_of_history(history)
    return Notice(history.task, history.transitions[-1], media, files)
