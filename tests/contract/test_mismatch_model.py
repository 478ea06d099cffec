"""Messages of two provider tasks with one callback URL end in the right result, in any order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from receiver.events import Callback, Source
from receiver.ingest import Ingest
from receiver.providers import PROVIDERS
from receiver.stores.base import Store
from receiver.stores.sql.queries import TaskHistory
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task, Trust
from tests.support.attempts import notice_source
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
RIGHT, WRONG = "right", "wrong"


def called(named: str, status: str, number: int) -> Callback:
    result = {"images": [{"index": 0, "url": f"https://cdn.example/{named}.png"}]}
    more = {"task_result": result} if status == "succeed" else {}
    return callback(body(status, named, number=number, **more), received_at=NOW + number)


def answered(named: str, status: str, source: Source, number: int) -> Callback:
    response = called(named, status, number)
    raw = b'{"code": 0, "data": ' + response.body + b"}"
    return replace(response, body=raw, source=source, trust=Trust.QUERIED)


CALLBACKS = st.builds(
    called,
    st.sampled_from([RIGHT, WRONG]),
    st.sampled_from(["submitted", "processing", "succeed", "failed"]),
    st.integers(0, 3),
)
CREATED = st.builds(
    answered, st.just(RIGHT), st.just("submitted"), st.just(Source.CREATE), st.just(9)
)


def frozen(history: TaskHistory) -> tuple[object, ...]:
    task = replace(history.task, deadline_at=None, mismatched_at=None)
    return (task, history.transitions, history.deliveries)


def take(store: Store, ingest: Ingest, message: Callback) -> None:
    """Record one message, and check its effects on the task."""
    before = store.queries.history("task-1")
    outcome = ingest.accept(message)
    after = store.queries.history("task-1")
    named = PROVIDERS["kling"].parse(message).provider_task_id
    if outcome is Outcome.MISMATCH:
        assert frozen(after) == frozen(before)
        assert named != after.task.provider_task_id
    else:
        assert named == after.task.provider_task_id
    is_sent = [(one.hook, one.status) for one in after.deliveries]
    assert len(set(is_sent)) == len(is_sent)


@given(early=st.lists(CALLBACKS, max_size=8), created=CREATED, late=st.lists(CALLBACKS, max_size=8))
def test_the_query_decides_the_final_status_whatever_came_before(
    migrated: Callable[[Path], SqliteStore],
    early: list[Callback],
    created: Callback,
    late: list[Callback],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = migrated(Path(folder) / "receiver.db")
        try:
            ingest = Ingest(store, [subscription("mail")])
            store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW))
            for message in (*early, created, *late):
                take(store, ingest, message)
            take(store, ingest, answered(RIGHT, "succeed", Source.QUERY, 99))
            history = store.queries.history("task-1")
            assert (history.task.status, history.task.trust) == (Status.SUCCEEDED, Trust.QUERIED)
            (delivery,) = [one for one in history.deliveries if one.status == "succeeded"]
            delivered = notice_source(store, delivery).callback
            assert delivered is not None
            assert b"right.png" in delivered.body
            assert store.polling.next_deadline_at() is None
        finally:
            store.close()
