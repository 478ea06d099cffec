"""The outputs of tasks: what was downloaded, and until when the rest can still be fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from receiver import providers
from receiver.errors import RequestRefused
from receiver.events import Callback, Media
from receiver.stores.base import Store
from receiver.stores.sql.queries import Picture
from receiver.tasks import Status, Task


@dataclass(frozen=True, slots=True)
class Result:
    """One output. `picture` None: nobody downloaded it; `media` None: its message was pruned."""

    index: str
    media: Media | None
    picture: Picture | None

    @property
    def expires_at(self) -> int | None:
        """When it is lost unless it is downloaded; None: it was, or nobody knows."""
        if self.picture is not None or self.media is None:
            return None
        return self.media.expires_at


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in a list, with its first picture, and the clock of what was not downloaded."""

    task: Task
    thumbnail: Picture | None
    pictures: int
    expires_at: int | None
    inputs: Sequence[str] = ()  # names of the pictures that were sent, where they were kept


def media_of(message: Callback | None) -> tuple[Media, ...]:
    """The outputs that the message tells of; none where it was pruned, or cannot be read now."""
    if message is None or not message.body:
        return ()
    try:
        return providers.parse(message).media
    except RequestRefused:
        return ()


def results(media: Sequence[Media], pictures: Sequence[Picture]) -> list[Result]:
    """Every output that is known by its message, its file, or both."""
    files = {one.file.media_index: one for one in reversed(pictures)}
    told = {one.index: one for one in media}
    return [Result(index, told.get(index), files.get(index)) for index in {**told, **files}]


def shown(store: Store, tasks: Sequence[Task]) -> list[TaskRow]:
    """These tasks as a list shows them."""
    pictures = store.queries.pictures([task.id for task in tasks])
    messages = store.queries.results([task.id for task in tasks if task.status is Status.SUCCEEDED])
    inputs = store.queries.names_of_inputs([task.id for task in tasks])
    return [
        _shown(task, pictures.get(task.id, []), messages, inputs.get(task.id, ())) for task in tasks
    ]


def _shown(
    task: Task,
    pictures: Sequence[Picture],
    messages: Mapping[str, Callback],
    inputs: Sequence[str],
) -> TaskRow:
    outputs = results(media_of(messages.get(task.id)), pictures)
    ends = [one.expires_at for one in outputs if one.expires_at]
    thumbnail = next((one for one in pictures if one.has_thumbnail), None)
    return TaskRow(task, thumbnail, len(pictures), min(ends, default=None), inputs)
