"""Submits the rows of one account, from many threads, and never one that was submitted before."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from receiver.errors import StoreError
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter.desk import Desk, was_not_accepted
from submitter.errors import InputError, OutcomeUnknown, ProviderError, WrongInput
from submitter.gate import Gate
from submitter.orders import Order, prepare
from submitter.rows import Row

ALL = 1_000_000
MOST_UNKNOWN = 3  # in a row; then the provider is in trouble, and each more may be paid for


class Fate(StrEnum):
    """What became of a row."""

    SUBMITTED = "submitted"
    SKIPPED = "already submitted"
    UNKNOWN = "outcome unknown"  # it may have been accepted, now or by an earlier run
    BAD = "bad"
    REFUSED = "refused"  # run the batch again to send it again
    LEFT = "not sent"


FINE = frozenset({Fate.SUBMITTED, Fate.SKIPPED})


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the file and what became of it."""

    line: int
    reference: str
    fate: Fate
    task_id: str | None = None
    problem: str | None = None


class Lane:
    """One account's rows. It closes when an error says nothing good of the rows to come."""

    def __init__(self, desk: Desk, gate: Gate, stop: threading.Event, folder: Path) -> None:
        self._desk = desk
        self._gate = gate
        self._stop = stop
        self._folder = folder
        self._closed_by: str | None = None
        self._unknown = 0  # one after the other

    def handle(self, row: Row) -> Result:
        """Submit the row, unless it was submitted before; whatever happens is the result."""
        self._gate.wait()
        if self._stop.is_set() or self._closed_by:
            return _result(row, Fate.LEFT, problem=self._closed_by or "interrupted")
        try:
            earlier = submitted_before(self._desk.ingest.store, row)
            if earlier is not None:
                return _told(row, earlier)
            room = self._desk.room
            order = prepare(room, row.human, row.cloth, row.reference, row.model, self._folder)
            task, is_new = self._claim(row, order)
        except InputError as error:
            return _result(row, Fate.BAD, problem=str(error))
        except StoreError as error:
            self._closed_by = str(error)
            return _result(row, Fate.LEFT, problem=str(error))
        return self._sent(row, task, order) if is_new else _told(row, task)

    def _claim(self, row: Row, order: Order) -> tuple[Task, bool]:
        """The row's task, and whether it is new: put on record now, by us and nobody else."""
        with self._desk.ingest.store.database.alone():  # two files may hold the same reference
            earlier = submitted_before(self._desk.ingest.store, row)
            if earlier is not None:
                return earlier, False
            return self._desk.put_on_record(order), True

    def _sent(self, row: Row, task: Task, order: Order) -> Result:
        try:
            self._desk.send(task, order)
        except (OutcomeUnknown, StoreError) as error:
            self._unknown += 1
            if self._unknown >= MOST_UNKNOWN:
                self._closed_by = f"the outcome of {self._unknown} in a row is unknown"
            return _result(row, Fate.UNKNOWN, task.id, str(error))
        except WrongInput as error:
            return _result(row, Fate.REFUSED, task.id, error.message)
        except ProviderError as error:
            self._closed_by = error.message
            return _result(row, Fate.REFUSED, task.id, error.message)
        self._unknown = 0
        return _result(row, Fate.SUBMITTED, task.id)


def submitted_before(store: Store, row: Row) -> Task | None:
    """The task of this reference that the provider took, or may have taken."""
    for task in store.lists.tasks(reference=row.reference, provider=row.provider, limit=ALL):
        if not was_not_accepted(task):
            return task
    return None


def _told(row: Row, task: Task) -> Result:
    if task.status is not Status.CREATED:
        return _result(row, Fate.SKIPPED, task.id)
    problem = "an earlier run put it on record and never learnt whether it was accepted"
    return _result(row, Fate.UNKNOWN, task.id, f"{problem}; see: submitter status {task.id}")


def _result(row: Row, fate: Fate, task_id: str | None = None, problem: str | None = None) -> Result:
    return Result(row.line, row.reference, fate, task_id, problem)
