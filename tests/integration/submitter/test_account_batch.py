"""One row in two files: the second run finds the task of the first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from receiver.stores import Store
from receiver.stores.sqlite.database import SqliteDatabase
from receiver.tasks import Task
from submitter.batch.rows import Row
from submitter.batch.run import AccountBatch, RowOutcome
from submitter.batch.shared_backoff import SharedBackoff
from submitter.pictures.inputs import TryOnInputs
from submitter.task_creation import TaskCreator
from tests.support.patience import wait_until
from tests.support.scripted_provider import Scripted


def test_two_concurrent_runs_submit_a_row_once(
    make_creator: Callable[..., TaskCreator],
    store: Store,
    server: Scripted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first run pauses between looking for an earlier task and recording its own."""
    waiting: list[int] = []  # runs that wait for the lock or hold it
    recording: list[str | None] = []
    alone, record_task = SqliteDatabase.alone, TaskCreator.record_task

    @contextmanager
    def watched(self: SqliteDatabase) -> Iterator[None]:
        waiting.append(threading.get_ident())
        with alone(self):
            yield

    def held_up(self: TaskCreator, inputs: TryOnInputs, task_id: str | None = None) -> Task:
        recording.append(inputs.reference)
        if len(recording) == 1:
            # The other run waits for the lock; without a lock, it reaches this line as well.
            wait_until(lambda: len(waiting) == 2 or len(recording) == 2)
        return record_task(self, inputs, task_id)

    monkeypatch.setattr(SqliteDatabase, "alone", watched)
    monkeypatch.setattr(TaskCreator, "record_task", held_up)
    server.will(server.say({"code": 0, "data": {"task_id": "8283", "task_status": "submitted"}}))
    url = "https://x.example/a.jpg"
    row = Row(2, "ORDER-7", url, (url,), provider="kling", account="default", model=None)
    stop = threading.Event()
    batches = [AccountBatch(make_creator(), SharedBackoff(stop), stop, tmp_path) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(batches[0].submit, row)
        wait_until(lambda: recording)
        second = pool.submit(batches[1].submit, row)
        outcomes = {first.result().outcome, second.result().outcome}
    assert len(server.asked) == len(store.lists.tasks()) == 1
    assert RowOutcome.SUBMITTED in outcomes
    assert outcomes <= {RowOutcome.SUBMITTED, RowOutcome.SKIPPED, RowOutcome.UNKNOWN}
