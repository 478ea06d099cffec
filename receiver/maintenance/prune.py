"""Erases data past its retention period, in steps so small that callbacks do not wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain

from receiver.clock import now_ms
from receiver.errors import NotFound
from receiver.hooks.base import KeepsFiles
from receiver.maintenance.erasures import READERS_END_WITHIN, finish
from receiver.stores.base import Store
from receiver.stores.sql.retention import PruneStep, TextKind

PAUSE = 0.02  # seconds between steps, for writers that wait for the database
PAGES = 250  # pages of the file that are returned to the file system per step


def prune(
    store: Store,
    older_than: int,
    hooks: Sequence[KeepsFiles] = (),
    *,
    dead_too: bool = False,
    readers_end_within: float = READERS_END_WITHIN,
) -> Iterator[PruneStep]:
    """Prune tasks that ended before `older_than` (ms UTC), yielding each step; then free space.

    Where `hooks` store files, the remains of failed attempts for these tasks are removed; results
    stay. Age is elapsed time: data that only looks older because the clock was set forward is kept
    for longer. Safe to stop at any time, and to run concurrently. Raises StoreUnavailable, and at
    the end NotErased if a reader keeps erased data in the database's files.
    """
    older_than -= store.clocks.set_forward_since(older_than)
    erased = 0
    for step in chain(
        _messages(store, older_than, dead_too=dead_too),
        _inputs(store, older_than, dead_too=dead_too),
    ):
        _tidy(store, step.tasks, hooks)
        yield step
        erased += step.callbacks + step.inputs
    for of in TextKind:
        erased += _texts(store, of, older_than, dead_too=dead_too)
    erased += store.retention.prune_rows(older_than)
    store.sessions.prune(now_ms())
    if erased:
        give_back(store)
    finish(store, "prune", within=readers_end_within)


def _messages(store: Store, older_than: int, *, dead_too: bool) -> Iterator[PruneStep]:
    step = store.retention.prune(older_than, dead_too=dead_too)
    yield step
    while step.next is not None:
        time.sleep(PAUSE)
        step = store.retention.prune(older_than, after=step.next, dead_too=dead_too)
        yield step


def _inputs(store: Store, older_than: int, *, dead_too: bool) -> Iterator[PruneStep]:
    after: int | None = 0
    while after is not None:
        time.sleep(PAUSE)
        step = store.retention.prune_inputs(older_than, after=after, dead_too=dead_too)
        yield PruneStep(0, 0, None, inputs=step.changed)
        after = step.next


def _texts(store: Store, of: TextKind, older_than: int, *, dead_too: bool) -> int:
    """Erase responses and reasons of tasks without a callback to prune; return how many."""
    erased, after = 0, 0
    while True:
        step = store.retention.prune_texts(of, older_than, after=after, dead_too=dead_too)
        erased += step.changed
        if step.next is None:
            return erased
        after = step.next
        time.sleep(PAUSE)


def _tidy(store: Store, tasks: Sequence[str], hooks: Sequence[KeepsFiles]) -> None:
    """Let the hooks remove the remains of failed attempts for these tasks."""
    for task_id in tasks if hooks else ():
        try:
            task = store.queries.task(task_id)
        except NotFound:
            continue
        for hook in hooks:
            hook.tidy(task)


def give_back(store: Store) -> None:
    """Return all free space to the file system. Raises StoreUnavailable."""
    left = store.database.shrink(PAGES)
    while left:
        time.sleep(PAUSE)
        before, left = left, store.database.shrink(PAGES)
        if left >= before:  # others free pages as quickly, or a reader prevents it
            return
