"""In PostgreSQL, an event that becomes visible after later ones is not lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from receiver.serializers.outputs import notice_of
from receiver.stores.postgres import PostgresStore
from receiver.stores.sql.event_log import Position
from receiver.tasks import Status, Task
from receiver.web.live.feed import EventFeed
from receiver.web.live.listener import EventListener, EventSelection
from tests.support.patience import wait_until

NOW = 1_765_519_851_000
TASKS = ("early", "late", "lost", "last")


@pytest.fixture
def store(fresh: Callable[[], str]) -> Iterator[PostgresStore]:
    store = PostgresStore(fresh())
    for task in TASKS:
        store.inbox.create_task(Task(task, "kling", Status.CREATED, NOW, NOW))
    yield store
    store.close()


def begin(
    store: PostgresStore, task: str, connection: psycopg.Connection | None = None
) -> psycopg.Connection:
    """Insert a transition in a transaction that the test commits or rolls back."""
    connection = connection or psycopg.connect(store.database.url)
    connection.execute(
        "insert into transitions (task, status, occurred_at, recorded_at, trust) "
        "select seq, 'processing', 0, 0, 'token' from tasks where id = %s",
        [task],
    )
    return connection


def commit(store: PostgresStore, task: str) -> None:
    with begin(store, task) as connection:
        connection.commit()


def read(store: PostgresStore, position: Position) -> tuple[list[str], Position]:
    events, following = store.event_log.after(position, 100)
    return [notice_of(one.source).task.id for one in events if one.source is not None], following


def test_an_event_that_appears_late_is_read_once_from_every_position(store: PostgresStore) -> None:
    start = store.event_log.end()
    with begin(store, "late") as late:
        commit(store, "early")
        found, live = read(store, start)
        assert found == ["early"]
        resumed = Position.parse(str(live))  # as another process reads it
        for _ in range(3):  # the gap stays while the transaction is running
            found, live = read(store, live)
            assert found == []
        fresh = store.event_log.end()  # the position of a new listener
        late.commit()
    for position in (live, resumed, fresh):
        found, following = read(store, position)
        assert found == ["late"]
        assert read(store, following)[0] == []


def test_a_gap_of_an_older_transaction_outlasts_newer_ones(store: PostgresStore) -> None:
    """The snapshot contains no transactions that began after the last one that ended."""
    position = store.event_log.end()
    with psycopg.connect(store.database.url) as older, ExitStack() as stack:
        older.execute("select pg_current_xact_id()")
        late = stack.enter_context(begin(store, "late"))
        begin(store, "early", older).commit()
        for task in ("lost", "last"):
            for _ in range(2):  # the first read finds the gap, and the second one dates it
                _, position = read(store, position)
            commit(store, task)
        _, position = read(store, position)
        late.commit()
    assert read(store, position)[0] == ["late"]


def test_a_rolled_back_event_leaves_no_gap(store: PostgresStore) -> None:
    position = store.event_log.end()
    with begin(store, "lost") as lost:
        commit(store, "early")
        _, position = read(store, position)
        assert position.gaps
        lost.rollback()

    def is_closed() -> bool:  # once all other transactions of the server that began before ended
        nonlocal position
        _, position = read(store, position)
        return position.gaps == ()

    wait_until(is_closed)
    commit(store, "last")
    assert read(store, position)[0] == ["last"]


def test_a_listener_receives_an_event_that_appears_late(store: PostgresStore) -> None:
    feed = EventFeed(store)
    try:
        listener = feed.listen(EventSelection(), None)
        with begin(store, "late") as late:
            list(listener.pages())
            commit(store, "early")
            wait_until(lambda: b"early" in text(listener))
            late.commit()
        wait_until(lambda: text(listener).count(b'"late:processing"') == 1)
    finally:
        feed.close()


_texts: dict[int, bytes] = {}


def text(listener: EventListener) -> bytes:
    """Return everything that the listener has received."""
    _texts[id(listener)] = _texts.get(id(listener), b"") + listener.take()
    return _texts[id(listener)]
