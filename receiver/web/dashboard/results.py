"""The outputs of tasks: the downloaded files, and the expiry of those not downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from receiver import providers
from receiver.errors import RequestRefused
from receiver.events import Callback, Media
from receiver.stores.base import Store
from receiver.stores.sql.queries import Picture
from receiver.tasks import Status, Task


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


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in a list. `expires_at` is when the first output that was not downloaded expires."""

    task: Task
    thumbnail: Picture | None
    pictures: int
    expires_at: int | None
    inputs: Sequence[str] = ()  # the names of the stored inputs


def media_of(message: Callback | None) -> tuple[Media, ...]:
    """Return the outputs in the message; none if it was pruned or can no longer be parsed."""
    if message is None or not message.body:
        return ()
    try:
        return providers.parse(message).media
    except RequestRefused:
        return ()


def results(media: Sequence[Media], pictures: Sequence[Picture]) -> list[Result]:
    """Return every output that is known from its message, its file, or both."""
    picture_of = {picture.file.media_index: picture for picture in reversed(pictures)}
    media_at = {output.index: output for output in media}
    return [
        Result(index, media_at.get(index), picture_of.get(index))
        for index in {**media_at, **picture_of}
    ]


def task_rows(store: Store, tasks: Sequence[Task]) -> list[TaskRow]:
    """Return a row of a list for each of the tasks."""
    pictures = store.queries.pictures([task.id for task in tasks])
    messages = store.queries.results([task.id for task in tasks if task.status is Status.SUCCEEDED])
    inputs = store.queries.names_of_inputs([task.id for task in tasks])
    rows = []
    for task in tasks:
        files = pictures.get(task.id, [])
        outputs = results(media_of(messages.get(task.id)), files)
        expiries = [output.expires_at for output in outputs if output.expires_at]
        thumbnail = next((picture for picture in files if picture.has_thumbnail), None)
        expires_at = min(expiries, default=None)
        rows.append(TaskRow(task, thumbnail, len(files), expires_at, inputs.get(task.id, ())))
    return rows
