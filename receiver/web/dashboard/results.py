"""The outputs of tasks: the downloaded files, and how long the others can still be downloaded."""

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
    inputs: Sequence[str] = ()  # the names of the stored inputs


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
