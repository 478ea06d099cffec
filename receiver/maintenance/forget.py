"""Forgets a task: erases texts, pictures and names. Its id and statuses stay."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from receiver.clock import now_ms
from receiver.deliveries import File
from receiver.errors import NotErased
from receiver.hooks import file_storage
from receiver.hooks.base import KeepsFiles
from receiver.hooks.file_names import folder_names
from receiver.maintenance.erasures import READERS_END_WITHIN, finish
from receiver.stores.base import Store
from receiver.stores.sql.erasure import Erasure
from receiver.tasks import Task

PATIENCE = 60.0  # seconds for running attempts to end, because they may still store a file


def forget(
    store: Store,
    task_id: str,
    hooks: Sequence[KeepsFiles] = (),
    *,
    patience: float = PATIENCE,
    readers_end_within: float = READERS_END_WITHIN,
) -> int:
    """Erase a task and the files that hooks stored for it; return the number of removed files.

    Files are found by their rows, and in the places where `hooks` store the files of this task.
    From the beginning, nothing more is stored, queried or sent about the task. Safe to repeat: the
    next run completes a failed one. Raises NotFound, NotErased, StoreUnavailable.
    """
    left = _when_quiet(store, task_id, patience)
    task = store.queries.task(task_id)
    removed = _remove(left.files, task, hooks)
    if not store.erasures.erase(task_id, now_ms()):
        finish(store, f"task {task_id}", within=readers_end_within)
        if task.reference:
            store.database.remove_remnants(task.reference)
    return removed


def _when_quiet(store: Store, task_id: str, patience: float) -> Erasure:
    """Wait for the running attempts of the task; return the state of its erasure."""
    until = time.monotonic() + patience
    left = store.erasures.close_task(task_id, now_ms())
    while left.under_way:
        if time.monotonic() > until:
            raise NotErased(
                f"task {task_id}: {left.under_way} attempt(s) of its deliveries still run. Nothing "
                "more is sent about it, but it is not erased yet: run this again in a minute"
            )
        time.sleep(0.2)
        left = store.erasures.close_task(task_id, now_ms())
    return left


def _remove(files: Iterable[File], task: Task, hooks: Sequence[KeepsFiles]) -> int:
    """Remove the recorded files, then any others where the hooks store files of the task."""
    urls = {file.url for file in files}
    for url in sorted(urls):
        try:
            file_storage.remove(url, folder_names(task))
        except OSError as error:
            raise NotErased(
                f"{url} could not be removed: {error.strerror or error}; "
                "remove the cause, and run this again"
            ) from error
    removed = len(urls)
    for hook in hooks:
        try:
            removed += hook.remove_files(task)
        except OSError as error:
            raise NotErased(
                f"files of the task {task.id} could not be removed where the hook {hook.name} puts "
                f"them: {error}; remove the cause, and run this again"
            ) from error
    return removed
