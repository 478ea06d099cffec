"""What people and scripts are shown of a task: how it stands, and where its pictures lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from receiver import providers
from receiver.deliveries import File, Notice
from receiver.errors import RequestRefused
from receiver.events import Media
from receiver.stores.sql.queries import TaskHistory
from receiver.tasks import Outcome
from receiver.text.display import rfc3339
from submitter.providers.base import ListedTask, Page
from submitter.wording import readable

LONGEST_URL = 4096  # characters to show; recorded ones reach about 1,000
TOLD = (Outcome.RECORDED, Outcome.DUPLICATE)


def document(history: TaskHistory) -> dict[str, Any]:
    """The task as scripts get it: `task` and `media`, as in the event that hooks get."""
    event = _notice(history).as_json()
    return {"task": event["task"], "media": event["media"]}


def lines(history: TaskHistory) -> Iterator[str]:
    """The task as people read it, a fact a line."""
    notice = _notice(history)
    task = history.task
    yield f"task       {task.id}"
    if task.reference:
        yield f"reference  {readable(task.reference)}"
    known_as = f", provider id {readable(task.id_at_provider)}" if task.id_at_provider else ""
    yield f"provider   {task.provider} (account {task.account}){known_as}"
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
        where = file.url if file else readable(media.url, LONGEST_URL) + expires
        yield f"{media.kind:<9}  {where}"


def page_document(page: Page) -> dict[str, Any]:
    return {
        "page": page.number,
        "page_size": page.size,
        "tasks": [_listed_document(task) for task in page.tasks],
    }


def row(task: ListedTask) -> tuple[str, str, str, str, str]:
    """A task of the provider's list: its id, ours, status, creation, and what came of it."""
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
    """The outputs that the provider last named for the status that the task has."""
    for stored in reversed(history.callbacks):
        if stored.outcome in TOLD and stored.callback.body:
            with suppress(RequestRefused):  # kept by a release that understood it
                event = providers.parse(stored.callback)
                if event.status is history.task.status and event.media:
                    return event.media
    return ()


def _files(history: TaskHistory) -> tuple[File, ...]:
    made = [d.id for d in history.deliveries if d.status == history.task.status]
    return tuple(file for delivery in made for file in history.files.get(delivery, ()))
