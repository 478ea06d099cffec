"""The outputs of tasks: the downloaded files, and the expiry of those not downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from receiver.serializers.outputs import media_of, results
from receiver.stores.base import Store
from receiver.stores.sql.queries import Picture
from receiver.tasks import Status, Task


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in a list. `expires_at` is when the first output that was not downloaded expires."""

    task: Task
    thumbnail: Picture | None
    pictures: int
    expires_at: int | None
    inputs: Sequence[str]  # the names of the stored inputs
    is_forgotten: bool


def thumbnail_of(pictures: Sequence[Picture]) -> Picture | None:
    """Return the first picture that has a thumbnail."""
    return next((picture for picture in pictures if picture.has_thumbnail), None)


def task_rows(store: Store, tasks: Sequence[Task]) -> list[TaskRow]:
    """Return a row of a list for each of the tasks."""
    pictures = store.queries.pictures([task.id for task in tasks])
    messages = store.queries.results([task.id for task in tasks if task.status is Status.SUCCEEDED])
    inputs = store.queries.names_of_inputs([task.id for task in tasks])
    forgotten = store.queries.forgotten([task.id for task in tasks])
    rows = []
    for task in tasks:
        files = pictures.get(task.id, [])
        outputs = results(media_of(messages.get(task.id)), files)
        expiries = [output.expires_at for output in outputs if output.expires_at]
        row = TaskRow(
            task,
            thumbnail_of(files),
            len(files),
            min(expiries, default=None),
            inputs.get(task.id, ()),
            task.id in forgotten,
        )
        rows.append(row)
    return rows
