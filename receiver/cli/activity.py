"""Follows the record: everything that happens is told once, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event as Signal

from receiver.stores.base import Store
from receiver.stores.sql.activity import Activity, ActivityKind, Key

WINDOW = 200  # rows of a kind that are looked at again: a commit may be later than its row key
IDLE = 5.0  # seconds


class ActivityFollower:
    """One follower, who has seen what is on record when it begins."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[ActivityKind, set[Key]] = {kind: set() for kind in ActivityKind}
        self.past = self.read(first=True)  # the latest, oldest first

    def follow(self, stop: Signal) -> Iterator[list[Activity]]:
        """What is new, some at a time, until `stop` is set. Raises StoreUnavailable."""
        while not stop.is_set():
            if found := self.read():
                yield found
            self._store.database.wait_for_commit(IDLE, stop)

    def read(self, *, first: bool = False) -> list[Activity]:
        found = [one for kind in ActivityKind for one in self._unseen(kind, first=first)]
        return sorted(found, key=lambda one: one.at)

    def _unseen(self, kind: ActivityKind, *, first: bool) -> list[Activity]:
        """Those of this kind that were not told; oldest first."""
        seen, unseen = self._seen[kind], list[Activity]()
        page = latest = self._store.activity.newest(kind, limit=WINDOW)
        while new := [one for one in page if one.key not in seen]:
            unseen += new
            if first or len(new) < WINDOW:
                break
            page = self._store.activity.newest(kind, before=page[-1].key, limit=WINDOW)
        self._seen[kind] = {one.key for one in latest}
        return unseen[::-1]
