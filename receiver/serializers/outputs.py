"""The outputs of tasks, from their messages and from the files of download hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from receiver import providers
from receiver.deliveries import File, Notice, Transition, task_json
from receiver.errors import RequestRefused
from receiver.events import Callback, Media, Source
from receiver.stores.base import Store
from receiver.tasks import Outcome, Status, Task

if TYPE_CHECKING:
    from receiver.stores.sql.claims import NoticeSource
    from receiver.stores.sql.queries import Picture, TaskHistory

REPLACED = "replaced "  # the prefix of the index of a file that a later attempt replaced
COUNTED = (Outcome.RECORDED, Outcome.DUPLICATE)


@dataclass(frozen=True, slots=True)
class Result:
    """One output. `picture` is None if it was not downloaded, `media` if its message was pruned."""

    index: str
    media: Media | None
    picture: Picture | None

    @property
    def expires_at(self) -> int | None:
        """The time at which an output that was not downloaded expires, if known."""
        if self.picture is not None or self.media is None:
            return None
        return self.media.expires_at


def media_of(message: Callback | None) -> tuple[Media, ...]:
    """Return the outputs in the message; none if it was pruned or can no longer be parsed."""
    if message is None or not message.body:
        return ()
    try:
        return providers.parse(message).media
    except RequestRefused:
        return ()


def notice_of(source: NoticeSource) -> Notice:
    """Return the notice of a transition, with the media that its message still contains."""
    message = source.callback
    is_create = message is not None and message.source is Source.CREATE
    return replace(source.notice, media=() if is_create else media_of(message))


def results(media: Sequence[Media], pictures: Sequence[Picture]) -> list[Result]:
    """Return every output that is known from its message, its file, or both."""
    picture_of = {picture.file.media_index: picture for picture in reversed(pictures)}
    media_at = {output.index: output for output in media}
    return [
        Result(index, media_at.get(index), picture_of.get(index))
        for index in {**media_at, **picture_of}
    ]


def media_of_history(history: TaskHistory, status: str | None = None) -> tuple[Media, ...]:
    """Return the media in the latest message that has this status, or that of the task."""
    for stored in reversed(history.callbacks):
        if stored.outcome in COUNTED and stored.callback.body:
            with suppress(RequestRefused):  # only an earlier version could parse it
                event = providers.parse(stored.callback)
                if event.status == (status or history.task.status) and event.media:
                    return event.media
    return ()


def files_of_history(history: TaskHistory, status: str | None = None) -> tuple[File, ...]:
    """Return the files that were downloaded for this status, or the current one of the task."""
    wanted = status or history.task.status
    deliveries = [d.id for d in history.deliveries if d.status == wanted]
    files = [file for delivery in deliveries for file in history.files.get(delivery, ())]
    return tuple(file for file in files if not file.media_index.startswith(REPLACED))


def notice_of_history(history: TaskHistory, transition: Transition) -> Notice:
    """Return the notice that hooks would receive now about a status change."""
    status = transition.status
    media, files = media_of_history(history, status), files_of_history(history, status)
    outputs = {
        delivery.hook: delivery.output
        for delivery in history.deliveries
        if delivery.status == status and delivery.output
    }
    return Notice(history.task, transition, media, files, outputs=outputs)


def history_media_json(history: TaskHistory) -> list[dict[str, Any]]:
    """Return the outputs of a task as the API shows them."""
    return _media_json(history.task, media_of_history(history), files_of_history(history))


def task_documents(store: Store, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Return the tasks with their outputs, as the API shows them."""
    ended = [task.id for task in tasks if task.status is Status.SUCCEEDED]
    messages: Mapping[str, Callback] = store.queries.results(ended) if ended else {}
    pictures = store.queries.pictures(ended) if ended else {}
    documents = []
    for task in tasks:
        files = [picture.file for picture in pictures.get(task.id, ())]
        outputs = _media_json(task, media_of(messages.get(task.id)), files)
        documents.append({**task_json(task), "media": outputs})
    return documents


def _media_json(task: Task, media: Sequence[Media], files: Sequence[File]) -> list[dict[str, Any]]:
    known = {output.index for output in media}
    pruned = {  # of outputs whose message was pruned, only the file is known
        file.media_index: Media(file.content_type.partition("/")[0], "", file.media_index)
        for file in files
        if file.media_index not in known
    }
    shown = (*media, *pruned.values())
    move = Transition(task.status, task.updated_at, task.updated_at, task.trust)
    documents = Notice(task, move, shown, tuple(files)).as_json()["media"]
    return [
        {**document, "url": document["url"] or None, "href": _href(task, document)}
        for document in documents
    ]


def _href(task: Task, output: Mapping[str, Any]) -> str | None:
    """Return the path of our API that serves the file; None unless it is in a folder."""
    if output["file"] is None or not output["file"].startswith("/"):
        return None
    return f"/api/tasks/{task.id}/files/{quote(output['index'], safe='')}"
