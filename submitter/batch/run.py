"""Submits the rows of a file, concurrently within each account. It is safe to run again."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from submitter.batch.account_batch import SUCCESSES, AccountBatch, RowOutcome, RowResult
from submitter.batch.rows import BadRow, Row
from submitter.batch.shared_backoff import SharedBackoff
from submitter.errors import ConfigurationError, InputError
from submitter.providers import open_provider
from submitter.session import Session
from submitter.task_creation import TaskCreator
from submitter.text import readable


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
    results += [RowResult(r.line, r.reference, RowOutcome.BAD, problem=r.problem) for r in bad_rows]
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
            unusable += [
                RowResult(row.line, row.reference, RowOutcome.BAD, problem=str(error))
                for row in rows_of_account
            ]
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
