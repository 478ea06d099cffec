"""The writer of one process for one PostgreSQL database.

An error rolls a whole batch back. Each caller then repeats its own write in a separate transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from receiver.errors import StoreUnavailable
from receiver.stores import group_commit
from receiver.stores.postgres.batch import commit_together
from receiver.stores.postgres.wire import ConnectionLost, Wire
from receiver.stores.sql.database import Session

Write = group_commit.Write[Session, Any]
MAX_BATCH = 64  # writes; each locks its rows until the batch is committed


class BatchUndone(Exception):
    """One write made its batch fail. Each caller has to repeat its own write separately."""


class PostgresWriter(group_commit.GroupCommit[Session]):
    """The writer for PostgreSQL. Each piece of work may only change the rows of one task.

    `run` may raise BatchUndone.
    """

    def __init__(self, url: str, is_pooled: Callable[[], bool] = bool) -> None:
        super().__init__()
        self._url = url
        self._is_pooled = is_pooled
        self._wire: Wire | None = None

    @property
    def _likely_cause(self) -> str:
        return "the database does not respond, or is unreachable"

    def _next_batch(self) -> list[Write]:
        """Remove the first waiting write of each task; later writes have to see its changes.

        The batch is sorted by task, so that two processes lock rows in the same order and cannot
        deadlock.
        """
        batch: dict[str, Write] = {}
        later: list[Write] = []
        for write in self._waiting:
            if write.about in batch or len(batch) == MAX_BATCH:
                later.append(write)
            else:
                batch[write.about] = write
        self._waiting = later
        return [batch[task_id] for task_id in sorted(batch)]

    def _commit_all(self, batch: list[Write]) -> Exception | None:
        try:
            self._commit(batch)
        except (ConnectionLost, StoreUnavailable) as error:
            self._disconnect()
            return StoreUnavailable(f"the database is unavailable: {error}")
        except Exception:  # noqa: BLE001 - the faulty write raises it again when it is repeated
            self._disconnect()
            return BatchUndone()
        return None

    def _commit(self, batch: list[Write]) -> None:
        was_open = self._wire is not None
        try:
            self._try(batch)
        except ConnectionLost:  # nothing was committed
            if not was_open:
                raise
            self._disconnect()  # the server may have restarted since the last batch
            self._try(batch)

    def _try(self, batch: list[Write]) -> None:
        pending = [(write, write.work) for write in batch if write.begin() and write.work]
        if not pending:
            return
        self._wire = self._wire or Wire(self._url, prepares=not self._is_pooled())
        works = [work for _, work in pending]
        results = commit_together(self._wire, works, self._statements_are_done)
        for (write, _), result in zip(pending, results, strict=True):
            write.returned = result

    def _disconnect(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
