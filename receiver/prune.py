"""Lets payloads go after their time, in steps so small that callbacks do not wait for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain

from receiver.stores.base import Store
from receiver.stores.upkeep import Pruned

PAUSE = 0.02  # seconds between steps: whoever waits for the file gets it
PAGES = 250  # of the file, given back at a time


def prune(store: Store, older_than: int, *, dead_too: bool = False) -> Iterator[Pruned]:
    """Prune what ended before that instant (ms UTC), yielding each step; then give space back.

    Age is elapsed time: what a clock that was set forward makes look older is kept for longer.
    Safe to stop anywhere, and to run twice at once. Raises StoreUnavailable.
    """
    older_than -= store.set_forward_since(older_than)
    erased = 0
    for step in chain(
        _messages(store, older_than, dead_too=dead_too),
        _inputs(store, older_than, dead_too=dead_too),
    ):
        yield step
        erased += step.callbacks + step.inputs
    if erased:
        give_back(store)


def _messages(store: Store, older_than: int, *, dead_too: bool) -> Iterator[Pruned]:
    step = store.prune(older_than, dead_too=dead_too)
    yield step
    while step.next is not None:
        time.sleep(PAUSE)
        step = store.prune(older_than, after=step.next, dead_too=dead_too)
        yield step


def _inputs(store: Store, older_than: int, *, dead_too: bool) -> Iterator[Pruned]:
    after: int | None = 0
    while after is not None:
        time.sleep(PAUSE)
        step = store.prune_inputs(older_than, after=after, dead_too=dead_too)
        yield Pruned(0, 0, None, inputs=step.changed)
        after = step.next


def give_back(store: Store) -> None:
    """Return all free space to the file system. Raises StoreUnavailable."""
    left = store.give_back(PAGES)
    while left:
        time.sleep(PAUSE)
        before, left = left, store.give_back(PAGES)
        if left >= before:  # others free pages as fast, or a reader holds them
            return
