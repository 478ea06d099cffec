"""One row in two files: whoever comes second sees the task of the first."""

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
from submitter.desk import Desk
from submitter.gate import Gate
from submitter.lane import Fate, Lane
from submitter.orders import Order
from submitter.rows import Row
from tests.support.patience import wait_until
from tests.support.scripted_provider import Scripted


def test_two_runs_that_meet_at_a_row_submit_it_once(
    desk: Callable[..., Desk],
    store: Store,
    server: Scripted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first is held up between looking for an earlier task and recording its own."""
    waiting: list[int] = []  # those that wait for the lock, or have it
    recording: list[str | None] = []
    alone, put_on_record = SqliteDatabase.alone, Desk.put_on_record

    @contextmanager
    def watched(self: SqliteDatabase) -> Iterator[None]:
        waiting.append(threading.get_ident())
        with alone(self):
            yield

    def held_up(self: Desk, order: Order, task_id: str | None = None) -> Task:
        recording.append(order.reference)
        if len(recording) == 1:
            # The other run waits for the lock; without one, it comes to this line as well.
            wait_until(lambda: len(waiting) == 2 or len(recording) == 2)
        return put_on_record(self, order, task_id)

    monkeypatch.setattr(SqliteDatabase, "alone", watched)
    monkeypatch.setattr(Desk, "put_on_record", held_up)
    server.will(server.say({"code": 0, "data": {"task_id": "8283", "task_status": "submitted"}}))
    url = "https://x.example/a.jpg"
    row = Row(2, "ORDER-7", url, (url,), provider="kling", account="default", model=None)
    stop = threading.Event()
    lanes = [Lane(desk(), Gate(stop), stop, tmp_path) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lanes[0].handle, row)
        wait_until(lambda: recording)
        second = pool.submit(lanes[1].handle, row)
        fates = {first.result().fate, second.result().fate}
    assert len(server.asked) == len(store.lists.tasks()) == 1
    assert Fate.SUBMITTED in fates
    assert fates <= {Fate.SUBMITTED, Fate.SKIPPED, Fate.UNKNOWN}
