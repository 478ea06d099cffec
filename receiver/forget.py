"""Forgets a task: words, pictures and names are erased; that it was there, and forgotten, stays."""

from __future__ import annotations

import time
from collections.abc import Iterable

from receiver.clock import now_ms
from receiver.deliveries import File
from receiver.errors import NotErased
from receiver.hooks import shelf
from receiver.stores.base import Store
from receiver.stores.upkeep import Erasure

PATIENCE = 60.0  # seconds for attempts under way: they may still make a file


def forget(store: Store, task_id: str, *, patience: float = PATIENCE) -> int:
    """Erase a task, and the files that hooks made of it; how many files.

    From the first moment on nothing about it is kept, asked or told. Safe to repeat: whatever
    fails half-way is erased by the next run. Raises NotFound, NotErased, StoreUnavailable.
    """
    left = _when_quiet(store, task_id, patience)
    _remove(left.files)
    store.erase(task_id, now_ms())
    return len(left.files)


def _when_quiet(store: Store, task_id: str, patience: float) -> Erasure:
    until = time.monotonic() + patience
    left = store.close_task(task_id, now_ms())
    while left.under_way:
        if time.monotonic() > until:
            raise NotErased(
                f"task {task_id}: {left.under_way} attempt(s) at its deliveries still run; "
                "nothing more is told of it, but run this again in a minute to erase it"
            )
        time.sleep(0.2)
        left = store.close_task(task_id, now_ms())
    return left


def _remove(files: Iterable[File]) -> None:
    for file in files:
        try:
            shelf.remove(file.url)
        except OSError as error:
            raise NotErased(
                f"{file.url} could not be removed: {error.strerror or error}; "
                "remove the cause, and run this again"
            ) from error
