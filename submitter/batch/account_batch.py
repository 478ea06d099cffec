"""Submits the rows of one account from several threads, and no row twice."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from receiver.errors import StoreError
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter.batch.rows import Row
from submitter.batch.shared_backoff import SharedBackoff
from submitter.errors import InputError, OutcomeUnknown, ProviderError, WrongInput
from submitter.pictures.inputs import TryOnInputs, prepare_inputs
from submitter.task_creation import TaskCreator, was_not_accepted

ALL = 1_000_000
# After this many the provider has a problem, and each further row may be paid for.
MAX_UNKNOWN_IN_A_ROW = 3


class RowOutcome(StrEnum):
    """The outcome of a row."""

    SUBMITTED = "submitted"
    SKIPPED = "already submitted"
    UNKNOWN = "outcome unknown"  # it may have been accepted, now or in an earlier run
    BAD = "bad"
    REFUSED = "refused"  # another run submits it again
    LEFT = "not sent"


SUCCESSES = frozenset({RowOutcome.SUBMITTED, RowOutcome.SKIPPED})


@dataclass(frozen=True, slots=True)
class RowResult:
    """A row of the file and its outcome; the fields are those of `--json`."""

    line: int
    reference: str
    outcome: RowOutcome
    task_id: str | None = None
    problem: str | None = None


class AccountBatch:
    """The rows of one account. It stops after an error that would affect the remaining rows."""

    def __init__(
        self, creator: TaskCreator, backoff: SharedBackoff, stop: threading.Event, folder: Path
    ) -> None:
        self._creator = creator
        self._store = creator.ingest.store
        self._backoff = backoff
        self._stop = stop
        self._folder = folder
        self._stopped_by: str | None = None
        self._unknown_in_a_row = 0

    def submit(self, row: Row) -> RowResult:
        """Submit the row, unless it was submitted before. Errors become part of the result."""
        self._backoff.wait()
        if self._stop.is_set() or self._stopped_by:
            return _result(row, RowOutcome.LEFT, problem=self._stopped_by or "interrupted")
        try:
            earlier = submitted_before(self._store, row)
            if earlier is not None:
                return _result_of_earlier(row, earlier)
            adapter = self._creator.adapter
            inputs = prepare_inputs(
                adapter, row.human, row.cloth, row.reference, row.model, self._folder
            )
            task, is_new = self._record(row, inputs)
        except InputError as error:
            return _result(row, RowOutcome.BAD, problem=str(error))
        except StoreError as error:
            self._stopped_by = str(error)
            return _result(row, RowOutcome.LEFT, problem=str(error))
        return self._send(row, task, inputs) if is_new else _result_of_earlier(row, task)

    def _record(self, row: Row, inputs: TryOnInputs) -> tuple[Task, bool]:
        """Return the row's task, and whether it was recorded now."""
        with self._store.database.alone():  # because two files may contain the same reference
            earlier = submitted_before(self._store, row)
            if earlier is not None:
                return earlier, False
            return self._creator.record_task(inputs), True

    def _send(self, row: Row, task: Task, inputs: TryOnInputs) -> RowResult:
        try:
            self._creator.send(task, inputs)
        except (OutcomeUnknown, StoreError) as error:
            self._unknown_in_a_row += 1
            if self._unknown_in_a_row >= MAX_UNKNOWN_IN_A_ROW:
                self._stopped_by = f"{self._unknown_in_a_row} outcomes in a row are unknown"
            return _result(row, RowOutcome.UNKNOWN, task.id, str(error))
        except WrongInput as error:
            return _result(row, RowOutcome.REFUSED, task.id, error.message)
        except ProviderError as error:
            self._stopped_by = error.message
            return _result(row, RowOutcome.REFUSED, task.id, error.message)
        self._unknown_in_a_row = 0
        return _result(row, RowOutcome.SUBMITTED, task.id)


def submitted_before(store: Store, row: Row) -> Task | None:
    """Return the task of this reference that the provider accepted, or may have accepted."""
    for task in store.lists.tasks(reference=row.reference, provider=row.provider, limit=ALL):
        if not was_not_accepted(task):
            return task
    return None


def _result_of_earlier(row: Row, task: Task) -> RowResult:
    if task.status is not Status.CREATED:
        return _result(row, RowOutcome.SKIPPED, task.id)
    problem = "an earlier run recorded the task and did not learn whether it was accepted"
    return _result(row, RowOutcome.UNKNOWN, task.id, f"{problem}; see: submitter status {task.id}")


def _result(
    row: Row, outcome: RowOutcome, task_id: str | None = None, problem: str | None = None
) -> RowResult:
    return RowResult(row.line, row.reference, outcome, task_id, problem)
