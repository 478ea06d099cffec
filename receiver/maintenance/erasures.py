"""Finishes erasures that a reader of the database delays, and reports them until then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from receiver.errors import NotErased
from receiver.observability.logger import Logger
from receiver.stores.base import Store
from receiver.text.display import rfc3339

READERS_END_WITHIN = 5.0  # seconds for readers that use an older snapshot of the database
REPORTED_AGAIN_AFTER = 600.0  # seconds
log = Logger()


def finish(store: Store, subject: str, *, within: float = READERS_END_WITHIN) -> None:
    """Wait until the database's files contain no erased data.

    Raises NotErased, about `subject`, if a reader prevents that for longer than `within` seconds;
    then a worker finishes the erasure.
    """
    until = time.monotonic() + within
    while not store.database.finish_erasure():
        if time.monotonic() > until:
            break
        time.sleep(0.5)  # each attempt may delay writers by 50 ms
    else:
        return
    unfinished = store.erasures.unfinished()
    if unfinished is not None:
        raise NotErased(
            f"{subject}: the data is no longer shown, but data erased since "
            f"{rfc3339(unfinished.since)} is still in the database's files: {unfinished.held_by}. "
            "A worker finishes the erasure when it can; receiver doctor reports whether it has"
        )


@dataclass(slots=True)
class FinishErasures:
    """A chore of the worker. Unfinished erasures are recorded, so a restart loses none."""

    store: Store
    clock: Callable[[], float] = time.monotonic
    _report_at: float | None = field(default=None, init=False)

    def round(self) -> None:
        """Finish an unfinished erasure, unless a reader prevents it. Raises StoreUnavailable."""
        unfinished = self.store.erasures.unfinished()
        if unfinished is None:
            if self._report_at is not None:  # another process finished it
                self._report_at = None
                log.info("an erasure is finished")
            return
        since = rfc3339(unfinished.since)
        if self.store.database.finish_erasure():
            self._report_at = None
            log.info("an erasure is finished", since=since)
        elif self._report_at is None or self.clock() >= self._report_at:
            self._report_at = self.clock() + REPORTED_AGAIN_AFTER
            log.warning("an erasure is not finished", since=since, held_by=unfinished.held_by)
