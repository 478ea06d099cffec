"""The commands `submitter status` and `submitter list`, and their output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from receiver.console import output
from receiver.console.find_task import find_task
from receiver.deliveries import Notice
from receiver.serializers.outputs import files_of_history, media_of_history
from receiver.stores import Store
from receiver.stores.sql.queries import TaskHistory
from receiver.tasks import Task
from receiver.text.display import cost_text, json_readable, redacted, rfc3339
from submitter.cli.group import print_json, print_lines
from submitter.cli.options import account, as_json, provider
from submitter.errors import SubmitterError
from submitter.providers import open_provider
from submitter.providers.base import ListedTask, Page
from submitter.queries import query
from submitter.session import Session, open_session
from submitter.text import readable

LONGEST_URL = 4096  # characters to show; recorded URLs have up to about 1,000


@click.command("status")
@click.argument("task")
@as_json
def status(task: str, as_json: bool) -> None:
    """Show a task; query the provider first if it has not ended.

    TASK is a task's id, a unique beginning or end of it, the provider's id, or a reference.
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
        # Scripts read the first line in a pipe, so its names stay.
        ids = ("provider id", "task") if sys.stdout.isatty() else ("its id", "our id")
        columns = (*ids, "status", "created", "result")
        output.show_table(columns, map(page_row, page.tasks), "No tasks.", ids=(ids[1],))


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
        yield f"cost       {readable(cost_text(task.cost, task.cost_unit))}"
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
