"""A writer whose database is a list, and that fails on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from receiver.stores.group_commit import GroupCommit, Write
from tests.support.patience import PATIENCE

Rows = list[object]


class ScriptedWriter(GroupCommit[Rows]):
    """Keeps the rows of each commit. `failure` is raised for the whole next batch."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Rows] = []
        self.failure: BaseException | None = None
        self.is_open = True
        self._hold: Callable[[str], None] = lambda _: None

    @property
    def rows(self) -> Rows:
        return [row for commit in self.commits for row in commit]

    @contextmanager
    def held(self, when: str = "begin") -> Iterator[threading.Event]:
        """Within the block, a batch stops at its `begin` or at its `commit`.

        Returns an event that is set when a batch has reached that point.
        """
        is_there, may_go = threading.Event(), threading.Event()

        def hold(where: str) -> None:
            if where == when:
                is_there.set()
                assert may_go.wait(PATIENCE)

        self._hold = hold
        try:
            yield is_there
        finally:
            self._hold = lambda _: None
            may_go.set()

    @property
    def _likely_cause(self) -> str:
        return "the script"

    def _commit_all(self, batch: list[Write[Rows, Any]]) -> Exception | None:
        self._hold("begin")
        rows: Rows = []
        for write in batch:
            _do(write, rows)
        self._statements_are_done()
        self._hold("commit")
        failure, self.failure = self.failure, None
        if isinstance(failure, Exception):
            return failure
        if failure is not None:
            raise failure
        if rows:
            self.commits.append(rows)
        return None

    def _disconnect(self) -> None:
        self.is_open = False


def _do(write: Write[Rows, Any], rows: Rows) -> None:
    already = len(rows)
    try:
        write.do(rows)
    except Exception as error:  # noqa: BLE001 - handed to the caller whose write it is
        del rows[already:]
        write.raised = error.with_traceback(None)  # its frames refer to the write


def adding(row: object) -> Callable[[Rows], object]:
    """Return work that adds a row and returns it."""

    def work(rows: Rows) -> object:
        rows.append(row)
        return row

    return work
