"""Prints a task, or a page of the provider's list, for people or for scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click

from receiver import providers
from receiver.console import output
from receiver.deliveries import File, Notice
from receiver.errors import RequestRefused
from receiver.events import Media
from receiver.stores import Store
from receiver.stores.sql.queries import TaskHistory
from receiver.tasks import Outcome, Task
from receiver.text.display import plain, rfc3339
from submitter.cli.group import print_json, print_lines
from submitter.providers.base import ListedTask, Page
from submitter.text import readable

LONGEST_URL = 4096  # characters to show; recorded URLs have up to about 1,000
ACCEPTED = (Outcome.RECORDED, Outcome.DUPLICATE)


def print_task(store: Store, task: Task, as_json: bool) -> None:
    history = store.queries.history(task.id)
    if as_json:
        print_json(task_document(history))
    else:
        print_lines(task_lines(history))


def print_page(page: Page, as_json: bool) -> None:
    """Print a table on a terminal, else one line per task with tabs between its fields."""
    if as_json:
        print_json(page_document(page))
    elif sys.stdout.isatty():
        columns = ("its id", "our id", "status", "created", "result")
        output.show_table(columns, map(page_row, page.tasks), "No tasks.")
    else:
        for task in page.tasks:
            click.echo("\t".join(map(plain, page_row(task))))


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


def page_document(page: Page) -> dict[str, Any]:
    return {
        "page": page.number,
        "page_size": page.size,
        "tasks": [_listed_document(task) for task in page.tasks],
    }


def page_row(task: ListedTask) -> tuple[str, str, str, str, str]:
    """Return the provider's id, our id, the status, the time of creation, and URLs or a reason."""
    return (
        task.provider_task_id,
        task.external_task_id or "",
        task.status,
        "" if task.created_at is None else rfc3339(task.created_at),
        " ".join(task.urls) or task.reason or "",
    )


def _listed_document(task: ListedTask) -> dict[str, Any]:
    return {
        "provider_task_id": task.provider_task_id,
        "external_task_id": task.external_task_id,
        "status": task.status,
        "reason": task.reason,
        "created_at": None if task.created_at is None else rfc3339(task.created_at),
        "urls": list(task.urls),
    }


def _notice(history: TaskHistory) -> Notice:
    return Notice(history.task, history.transitions[-1], _media(history), _files(history))


def _media(history: TaskHistory) -> tuple[Media, ...]:
    """Return the outputs in the latest callback or response with the status of the task."""
    for stored in reversed(history.callbacks):
        if stored.outcome in ACCEPTED and stored.callback.body:
            with suppress(RequestRefused):  # an earlier version could parse it
                event = providers.parse(stored.callback)
                if event.status is history.task.status and event.media:
                    return event.media
    return ()


def _files(history: TaskHistory) -> tuple[File, ...]:
    deliveries = [d.id for d in history.deliveries if d.status == history.task.status]
    return tuple(file for delivery in deliveries for file in history.files.get(delivery, ()))
