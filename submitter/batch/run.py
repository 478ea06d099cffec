"""Submits the rows of a file, concurrently within each account, and no row twice.

It is safe to run again.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from receiver.errors import StoreError
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter.batch.rows import BadRow, Row
from submitter.batch.shared_backoff import SharedBackoff
from submitter.errors import (
    ConfigurationError,
    InputError,
    OutcomeUnknown,
    ProviderError,
    WrongInput,
)
from submitter.pictures.inputs import TryOnInputs, prepare_inputs
from submitter.providers import open_provider
from submitter.session import Session
from submitter.task_creation import TaskCreator, submitted_before
from submitter.text import readable

# After this many unknown outcomes in a row, the provider has a problem, and each further row may be
# charged.
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


@dataclass
class AccountBatch:
    """The rows of one account. It stops after an error that would affect the remaining rows."""

    creator: TaskCreator
    backoff: SharedBackoff
    stop: threading.Event
    folder: Path  # the start of relative paths of pictures
    _stopped_by: str | None = None
    _unknown_in_a_row: int = 0

    @property
    def _store(self) -> Store:
        return self.creator.ingest.store

    def submit(self, row: Row) -> RowResult:
        """Submit the row, unless it was submitted before. Errors become part of the result."""
        self.backoff.wait()
        if self.stop.is_set() or self._stopped_by:
            return _result(row, RowOutcome.LEFT, problem=self._stopped_by or "interrupted")
        try:
            earlier = submitted_before(self._store, row.reference, row.provider)
            if earlier is None:
                given = (row.human, row.cloth, row.reference, row.model)
                inputs = prepare_inputs(self.creator.adapter, *given, self.folder, row.metadata)
                with self._store.database.alone():  # two files may contain the same reference
                    earlier = submitted_before(self._store, row.reference, row.provider)
                    task = earlier or self.creator.record_task(inputs)
                if earlier is None:
                    return self._send(row, task, inputs)
            return _result_of_earlier(row, earlier)
        except InputError as error:
            return _result(row, RowOutcome.BAD, problem=str(error))
        except StoreError as error:
            self._stopped_by = str(error)
            return _result(row, RowOutcome.LEFT, problem=str(error))

    def _send(self, row: Row, task: Task, inputs: TryOnInputs) -> RowResult:
        try:
            self.creator.send(task, inputs)
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


def _result_of_earlier(row: Row, task: Task) -> RowResult:
    if task.status is not Status.CREATED:
        return _result(row, RowOutcome.SKIPPED, task.id)
    problem = "an earlier run recorded the task and did not learn whether it was accepted"
    return _result(row, RowOutcome.UNKNOWN, task.id, f"{problem}; see: submitter status {task.id}")


def _result(
    row: Row | BadRow, outcome: RowOutcome, task_id: str | None = None, problem: str | None = None
) -> RowResult:
    return RowResult(row.line, row.reference, outcome, task_id, problem)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """The outcomes of all rows, in the order of the file."""

    results: tuple[RowResult, ...]
    was_interrupted: bool

    @property
    def has_succeeded(self) -> bool:
        return not self.was_interrupted and all(r.outcome in SUCCESSES for r in self.results)

    def count(self) -> dict[str, int]:
        """Return the number of rows by outcome."""
        return {
            outcome.value: sum(result.outcome is outcome for result in self.results)
            for outcome in RowOutcome
        }

    def document(self) -> dict[str, Any]:
        """Return the report for scripts, with one entry per row."""
        rows = [asdict(result) for result in self.results]
        return {"rows": rows, "summary": self.count(), "interrupted": self.was_interrupted}

    def lines(self) -> list[str]:
        """Return the report for people: the counts, and every row that did not succeed."""
        counts = [f"{number} {outcome}" for outcome, number in self.count().items() if number]
        failures = [line_of(r) for r in self.results if r.outcome not in SUCCESSES]
        return [", ".join(counts) or "no rows", *failures]


def line_of(result: RowResult) -> str:
    """Return the result of one row as a line of text."""
    row = " ".join(filter(None, (f"line {result.line}", readable(result.reference))))
    details = result.problem or (result.task_id and f"task {result.task_id}") or ""
    return f"{row}: {result.outcome}" + (f": {readable(details, 1000)}" if details else "")


def run(
    rows: Sequence[Row],
    bad_rows: Sequence[BadRow],
    session: Session,
    folder: Path,
    concurrency: int,
    on_result: Callable[[RowResult], None] = lambda _: None,
    on_interrupt: Callable[[], None] = lambda: None,
) -> BatchReport:
    """Submit the rows, up to `concurrency` at a time for each account, and return the report.

    Relative paths of pictures start at `folder`. `on_result` is called as each row ends. After a
    KeyboardInterrupt, `on_interrupt` is called and no further row is started. Raises
    ConfigurationError if no account can be used.
    """
    stop = threading.Event()
    batches, results = _account_batches(rows, session, folder, stop)
    results += [_result(row, RowOutcome.BAD, problem=row.problem) for row in bad_rows]
    for result in results:
        on_result(result)
    with ExitStack() as stack:
        futures: list[Future[RowResult]] = []
        for batch, rows_of_account in batches:
            pool = stack.enter_context(ThreadPoolExecutor(concurrency))
            futures += [pool.submit(batch.submit, row) for row in rows_of_account]
        submitted, was_interrupted = _collect(futures, stop, on_result, on_interrupt)
    ordered = sorted(results + submitted, key=lambda result: result.line)
    return BatchReport(tuple(ordered), was_interrupted)


def _account_batches(
    rows: Sequence[Row], session: Session, folder: Path, stop: threading.Event
) -> tuple[list[tuple[AccountBatch, list[Row]]], list[RowResult]]:
    """Return a batch for each account, and the results of rows whose account is unusable."""
    accounts: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        accounts[row.provider, row.account].append(row)
    batches: list[tuple[AccountBatch, list[Row]]] = []
    unusable: list[RowResult] = []
    problems: list[str] = []
    for (provider, account), rows_of_account in accounts.items():
        backoff = SharedBackoff(stop)
        try:
            adapter = open_provider(provider, account, backoff)
        except (ConfigurationError, InputError) as error:
            problems += error.problems if isinstance(error, ConfigurationError) else [str(error)]
            unusable += [_result(r, RowOutcome.BAD, problem=str(error)) for r in rows_of_account]
            continue
        creator = TaskCreator(session.ingest, adapter, session.settings, account)
        batches.append((AccountBatch(creator, backoff, stop, folder), rows_of_account))
    if problems and not batches:
        raise ConfigurationError(problems)
    return batches, unusable


def _collect(
    futures: Sequence[Future[RowResult]],
    stop: threading.Event,
    on_result: Callable[[RowResult], None],
    on_interrupt: Callable[[], None],
) -> tuple[list[RowResult], bool]:
    """Return all results, and whether the batch was interrupted; wait for rows in progress."""
    reported: set[Future[RowResult]] = set()
    was_interrupted = False
    while len(reported) < len(futures):
        try:
            for future in as_completed(set(futures) - reported):
                reported.add(future)
                on_result(future.result())
        except KeyboardInterrupt:
            if was_interrupted:
                raise
            was_interrupted = True
            stop.set()
            on_interrupt()
    return [future.result() for future in futures], was_interrupted
