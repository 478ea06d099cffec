"""Submits the rows of a file, as many at once as each account allows; safe to run again."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitter.desk import Desk
from submitter.errors import ConfigurationError, InputError
from submitter.gate import Gate
from submitter.lane import FINE, Fate, Lane, Result
from submitter.providers import open_provider
from submitter.record import Record
from submitter.rows import BadRow, Row
from submitter.wording import readable


@dataclass(frozen=True, slots=True)
class Report:
    """What became of every row, in the order of the file."""

    results: tuple[Result, ...]
    interrupted: bool

    @property
    def is_fine(self) -> bool:
        return not self.interrupted and all(result.fate in FINE for result in self.results)

    def count(self) -> dict[str, int]:
        """How many rows met each fate."""
        return {fate.value: sum(r.fate is fate for r in self.results) for fate in Fate}

    def document(self) -> dict[str, Any]:
        """For scripts: a row each."""
        rows = [
            {
                "line": result.line,
                "reference": result.reference,
                "outcome": result.fate.value,
                "task_id": result.task_id,
                "problem": result.problem,
            }
            for result in self.results
        ]
        return {"rows": rows, "summary": self.count(), "interrupted": self.interrupted}

    def lines(self) -> list[str]:
        """For people: the sum, and then every row that needs them."""
        sums = ", ".join(f"{number} {fate}" for fate, number in self.count().items() if number)
        wrong = [line_of(result) for result in self.results if result.fate not in FINE]
        return [sums or "no rows", *wrong]


def line_of(result: Result) -> str:
    """One row as people read it."""
    named = " ".join(filter(None, (f"line {result.line}", readable(result.reference))))
    more = result.problem or (result.task_id and f"task {result.task_id}") or ""
    return f"{named}: {result.fate}" + (f": {readable(more, 1000)}" if more else "")


def run(
    rows: Sequence[Row],
    bad: Sequence[BadRow],
    record: Record,
    folder: Path,
    concurrency: int,
    told: Callable[[Result], None] = lambda _: None,
    stopping: Callable[[], None] = lambda: None,
) -> Report:
    """Submit `rows`, `concurrency` at once for each account; `told` hears of each as it ends.

    Relative picture paths start at `folder`. After a KeyboardInterrupt no new row is begun, and
    `stopping` is called.
    Raises ConfigurationError if no account can be used.
    """
    stop = threading.Event()
    lanes, results = _lanes(rows, record, folder, stop)
    results += [Result(row.line, row.reference, Fate.BAD, problem=row.problem) for row in bad]
    for result in results:
        told(result)
    with ExitStack() as stack:
        futures: list[Future[Result]] = []
        for lane, its_rows in lanes:
            pool = stack.enter_context(ThreadPoolExecutor(concurrency))
            futures += [pool.submit(lane.handle, row) for row in its_rows]
        ended, interrupted = _collected(futures, stop, told, stopping)
    ordered = sorted(results + ended, key=lambda result: result.line)
    return Report(tuple(ordered), interrupted)


def _lanes(
    rows: Sequence[Row], record: Record, folder: Path, stop: threading.Event
) -> tuple[list[tuple[Lane, list[Row]]], list[Result]]:
    """A lane for each account, and the rows of those that cannot be used."""
    accounts: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        accounts[row.provider, row.account].append(row)
    lanes: list[tuple[Lane, list[Row]]] = []
    unusable: list[Result] = []
    problems: list[str] = []
    for (provider, account), its_rows in accounts.items():
        gate = Gate(stop)
        try:
            room = open_provider(provider, account, gate)
        except (ConfigurationError, InputError) as error:
            problems += error.problems if isinstance(error, ConfigurationError) else [str(error)]
            unusable += [Result(r.line, r.reference, Fate.BAD, None, str(error)) for r in its_rows]
            continue
        desk = Desk(record.ingest, room, record.settings, account)
        lanes.append((Lane(desk, gate, stop, folder), its_rows))
    if problems and not lanes:
        raise ConfigurationError(problems)
    return lanes, unusable


def _collected(
    futures: Sequence[Future[Result]],
    stop: threading.Event,
    told: Callable[[Result], None],
    stopping: Callable[[], None],
) -> tuple[list[Result], bool]:
    """The results, and whether somebody interrupted; what is under way is waited for."""
    heard: set[Future[Result]] = set()
    interrupted = False
    while len(heard) < len(futures):
        try:
            for future in as_completed(set(futures) - heard):
                heard.add(future)
                told(future.result())
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            stop.set()
            stopping()
    return [future.result() for future in futures], interrupted
