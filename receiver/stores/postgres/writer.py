"""The writer of one process for one PostgreSQL database.

What goes wrong in a batch undoes all of it and answers nobody: those who wait do their write again,
alone, on connections of their own.
"""

from __future__ import annotations

from typing import Any

from receiver.errors import StoreUnavailable
from receiver.stores import group_commit
from receiver.stores.postgres.batch import commit_together
from receiver.stores.postgres.wire import Lost, Wire
from receiver.stores.sql.session import Session

Write = group_commit.Write[Session, Any]
MOST_AT_ONCE = 64  # writes; each holds its rows until the batch is committed


class Undone(Exception):
    """The batch failed; whose fault it was is not known. It is to be done alone."""


class GroupCommit(group_commit.GroupCommit[Session]):
    """Its `run` may raise Undone; the work is about one task, and touches no other's rows."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._wire: Wire | None = None

    @property
    def _in_the_way(self) -> str:
        return "the database hangs, or is out of reach"

    def _next_batch(self) -> list[Write]:
        """One of each task, the first: the next about it has to see what that one moved.

        In order of the tasks: two processes that both hold rows of several wait in no ring.
        """
        batch: dict[str, Write] = {}
        later: list[Write] = []
        for write in self._waiting:
            if write.about in batch or len(batch) == MOST_AT_ONCE:
                later.append(write)
            else:
                batch[write.about] = write
        self._waiting = later
        return [batch[task_id] for task_id in sorted(batch)]

    def _commit_all(self, batch: list[Write]) -> Exception | None:
        try:
            self._commit(batch)
        except (Lost, StoreUnavailable) as error:
            self._let_go()
            return StoreUnavailable(f"the database is unavailable: {error}")
        except Exception:  # noqa: BLE001 - done alone, it is raised again where it belongs
            self._let_go()
            return Undone()
        return None

    def _commit(self, batch: list[Write]) -> None:
        was_open = self._wire is not None
        try:
            self._try(batch)
        except Lost:  # and nothing is committed
            if not was_open:
                raise
            self._let_go()  # the server may have restarted while nobody looked
            self._try(batch)

    def _try(self, batch: list[Write]) -> None:
        wanted = [(write, write.work) for write in batch if write.begin() and write.work]
        if not wanted:
            return
        self._wire = self._wire or Wire(self._url)
        works = [work for _, work in wanted]
        results = commit_together(self._wire, works, self._needs_no_python)
        for (write, _), result in zip(wanted, results, strict=True):
            write.returned = result

    def _let_go(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
