"""A callback that is submitted without waiting: its future has the result that `record` returns."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from receiver.errors import NotTheProtocol, StoreUnavailable
from receiver.events import Callback
from receiver.providers import get
from receiver.stores import group_commit
from receiver.stores.base import Store
from receiver.stores.postgres.writer import BatchUndone
from receiver.tasks import Outcome, Status, Task, Trust
from tests.support.patience import PATIENCE
from tests.support.samples import body, callback, subscription

HOOKS = [subscription("mail")]
TASK = Task("task-1", "kling", Status.CREATED, 1, 1)


@pytest.fixture(autouse=True)
def _callers_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PATIENCE", PATIENCE)


def submit(store: Store, one: Callback, **more: Any) -> Future[Outcome]:
    return store.inbox.submit(one, get("kling").parse(one), HOOKS, **more)


def test_the_result_is_the_outcome_and_is_on_record_then(store: Store) -> None:
    write = submit(store, callback())
    assert store.lists.tasks() == []
    assert store.database.writer.waiting == 1  # it does not begin before the caller starts it
    store.database.writer.start()
    assert write.result(PATIENCE) is Outcome.RECORDED
    history = store.queries.history("task-1")
    assert [stored.callback.body for stored in history.callbacks] == [body()]
    assert [move.status for move in history.transitions] == ["succeeded"]
    assert [delivery.hook for delivery in store.lists.deliveries()] == ["mail"]


def test_callbacks_submitted_together_are_recorded_in_order(store: Store) -> None:
    writes = [submit(store, callback(body(status))) for status in ("succeed", "succeed", "failed")]
    store.database.writer.start()
    outcomes = [write.result(PATIENCE) for write in writes]
    assert outcomes == [Outcome.RECORDED, Outcome.DUPLICATE, Outcome.CONFLICT]
    assert store.queries.task("task-1").status is Status.SUCCEEDED


def test_a_callback_that_must_be_confirmed_does_not_end_its_task(store: Store) -> None:
    write = submit(store, callback(), confirm=True)
    store.database.writer.start()
    by_record = callback(task_id="task-2")
    expected = store.inbox.record(by_record, get("kling").parse(by_record), HOOKS, confirm=True)
    assert write.result(PATIENCE) is expected
    assert store.queries.task("task-1").status is store.queries.task("task-2").status
    assert store.lists.deliveries() == []


def test_a_refusal_raises_its_exception_and_records_nothing(store: Store) -> None:
    """On PostgreSQL, the future may only report that nothing was done; `record` reports why."""
    store.inbox.create_task(replace(TASK, provider="appypie"))
    refused = callback()
    write = submit(store, refused)
    store.database.writer.start()
    assert isinstance(write.exception(PATIENCE), NotTheProtocol | BatchUndone)
    with pytest.raises(NotTheProtocol):
        store.inbox.record(refused, get("kling").parse(refused), HOOKS)
    assert store.queries.history("task-1").callbacks == ()
    assert store.queries.task("task-1").status is Status.CREATED


def test_a_callback_in_an_undone_batch_can_be_recorded_with_record(store: Store) -> None:
    store.inbox.create_task(replace(TASK, provider="appypie"))
    one = callback(task_id="task-2")
    _, write = submit(store, callback()), submit(store, one)
    store.database.writer.start()
    if write.exception(PATIENCE) is not None:
        assert store.inbox.record(one, get("kling").parse(one), HOOKS) is Outcome.RECORDED
    (stored,) = store.queries.history("task-2").callbacks
    assert stored.repeats == 0


def test_a_withdrawn_callback_is_never_recorded(store: Store) -> None:
    withdrawn, other = submit(store, callback()), submit(store, callback(task_id="task-2"))
    assert withdrawn.cancel()
    store.database.writer.start()
    assert other.result(PATIENCE) is Outcome.RECORDED
    assert [task.id for task in store.lists.tasks()] == ["task-2"]


def test_a_message_without_a_task_is_not_accepted(store: Store) -> None:
    """The task of the message has to be looked up first."""
    signed = replace(callback(), task_id=None, trust=Trust.SIGNED)
    with pytest.raises(ValueError, match="without a task id"):
        submit(store, signed)
    assert store.database.writer.waiting == 0


def test_a_closed_store_accepts_no_callback(store: Store) -> None:
    store.close()
    with pytest.raises(StoreUnavailable, match="closing"):
        submit(store, callback())
