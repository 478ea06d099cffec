"""Callbacks committed together on PostgreSQL are recorded as if each were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import psycopg
import pytest

from receiver.errors import StoreUnavailable
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.providers import get
from receiver.stores import group_commit
from receiver.stores.postgres import PostgresStore, batch, wire, writer
from receiver.stores.sql.database import Session
from receiver.stores.sql.recording import Recording
from receiver.tasks import Outcome, Status, Task
from tests.support.patience import PATIENCE, wait_until
from tests.support.postgres_proxy import Between
from tests.support.samples import body, callback, subscription

T = TypeVar("T")
FOR_EVER = 10 * PATIENCE  # seconds; a failing test fails earlier than this
NEW = Task("task-05", "kling", Status.CREATED, 1, 1)
HOOKS = [subscription("mail"), subscription("slack")]


WAITS_AT_COMMIT = """
create function wait_for_the_test() returns trigger language plpgsql as
  $$ begin perform pg_advisory_lock(1); perform pg_advisory_unlock(1); return null; end $$;
create constraint trigger at_commit after insert on tasks
  deferrable initially deferred for each row execute function wait_for_the_test()
"""


@pytest.fixture(autouse=True)
def _callers_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PATIENCE", FOR_EVER)


@pytest.fixture
def url(fresh: Callable[[], str]) -> str:
    return fresh()


@pytest.fixture
def between(url: str) -> Iterator[Between]:
    made = Between(int(psycopg.conninfo.conninfo_to_dict(url)["port"] or 0))
    yield made
    made.is_silent.clear()
    made.close()


@pytest.fixture
def far_url(url: str, between: Between) -> str:
    """The URL of the database through the proxy."""
    port = str(psycopg.conninfo.conninfo_to_dict(url)["port"])
    return url.replace(f":{port}/", f":{between.port}/")


@pytest.fixture
def store(far_url: str) -> Iterator[PostgresStore]:
    made = PostgresStore(far_url)
    yield made
    made.close()


class Together:
    """Submits while the writer is busy, so that all work is in one batch."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.ingest = Ingest(store, HOOKS)
        self._pool = ThreadPoolExecutor(40)
        self._count = 0

    def accept(self, one: Callback) -> Future[Outcome]:
        return self._hand_in(lambda: self.ingest.accept(one))

    def create(self, task: Task) -> Future[None]:
        return self._hand_in(lambda: self.store.inbox.create_task(task))

    def _hand_in(self, verb: Callable[[], T]) -> Future[T]:
        self._count += 1
        handed_in = self._pool.submit(verb)
        wait_until(lambda: self.store.database.writer.waiting == self._count)
        return handed_in


@contextmanager
def together(store: PostgresStore) -> Iterator[Together]:
    """Keep the writer busy within the block, so that it takes no waiting work."""
    is_held, may_go = threading.Event(), threading.Event()

    def hold(_: Session) -> None:
        is_held.set()
        may_go.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(store.database.writer.run, hold, "held")
        assert is_held.wait(PATIENCE)
        try:
            yield Together(store)
        finally:
            may_go.set()


def told(number: int, status: str = "succeed") -> Callback:
    return callback(body(status, f"theirs-{number}"), f"task-{number:02}")


def test_waiting_callbacks_share_a_transaction(store: PostgresStore, url: str) -> None:
    with together(store) as batch_of_many:
        answers = [batch_of_many.accept(told(number)) for number in range(12)]
    assert [answer.result(PATIENCE) for answer in answers] == [Outcome.RECORDED] * 12
    with psycopg.connect(url) as connection:
        jobs = connection.execute("select count(*) from procrastinate_jobs").fetchone()
    assert _transactions(url) == 1
    assert jobs == (24,)
    for number in range(12):
        history = store.queries.history(f"task-{number:02}")
        assert [one.callback.body for one in history.callbacks] == [told(number).body]
        assert len(store.lists.deliveries(task_id=f"task-{number:02}")) == 2


def test_a_batch_takes_as_many_round_trips_as_one_callback(
    store: PostgresStore, far_url: str, between: Between
) -> None:
    for number in range(12):
        store.inbox.create_task(replace(NEW, id=f"task-{number:02}"))
    far = wire.Wire(far_url)
    about_to_commit: list[int] = []
    before = between.count
    for status in ("submitted", "succeed"):  # each statement is prepared the first time
        works = [_recording(told(number, status)) for number in range(12)]
        before = between.count
        about_to_commit.clear()
        outcomes = batch.commit_together(far, works, lambda: about_to_commit.append(between.count))
        assert outcomes == [Outcome.RECORDED] * 12
        assert about_to_commit == [between.count - 1]  # one round trip is left, for the commit
    assert between.count - before <= 3
    far.close()


def test_the_event_loop_does_not_wait_for_the_commit(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "STATEMENTS_TIMEOUT", FOR_EVER)

    one = told(1)
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute(WAITS_AT_COMMIT)
        holder.execute("select pg_advisory_lock(1)")
        answer = Ingest(store, HOOKS).submit(one, get("kling").parse(one))
        store.database.writer.start_and_wait(lambda: None)
        assert store.lists.tasks() == []
        assert not answer.done()
        holder.execute("select pg_advisory_unlock(1)")
        assert answer.result(PATIENCE) is Outcome.RECORDED


def _recording(one: Callback) -> Callable[[Session], Outcome]:
    event = get("kling").parse(one)
    return lambda session: Recording(session, HOOKS).record(one, event)


def test_a_batch_locks_its_tasks_in_order(store: PostgresStore) -> None:
    """Otherwise two processes with the same tasks in their batches could deadlock."""
    with together(store) as batch_of_many:
        answers = [batch_of_many.accept(told(number)) for number in (3, 1, 2)]
    assert [answer.result(PATIENCE) for answer in answers] == [Outcome.RECORDED] * 3
    assert [task.id for task in store.lists.tasks()] == [
        "task-03",
        "task-02",
        "task-01",
    ]  # newest first


def test_slow_work_is_not_done_on_the_event_loop(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop of a web process submits, so slow work has to be done on a thread."""

    def fails(*_: object) -> None:
        raise psycopg.Error("whose fault it was is not known")

    monkeypatch.setattr(writer, "commit_together", fails)
    ingest = Ingest(store, HOOKS)
    one = told(1)
    write = ingest.submit(one, get("kling").parse(one))
    store.database.writer.start()
    assert isinstance(write.exception(PATIENCE), writer.BatchUndone)
    assert store.lists.tasks() == []
    assert ingest.accept(one) is Outcome.RECORDED


def test_a_failing_callback_fails_alone_in_a_batch(store: PostgresStore) -> None:
    store.inbox.create_task(NEW)
    with together(store) as batch_of_many:
        before = batch_of_many.accept(told(1))
        taken = batch_of_many.create(NEW)
        created = batch_of_many.create(replace(NEW, id="task-07"))
        behind = batch_of_many.accept(told(9))
    assert before.result(PATIENCE) is behind.result(PATIENCE) is Outcome.RECORDED
    created.result(PATIENCE)
    with pytest.raises(ValueError, match="on record already"):
        taken.result(PATIENCE)
    assert {task.id for task in store.lists.tasks()} == {"task-01", "task-05", "task-07", "task-09"}
    for task_id in ("task-01", "task-09"):
        (kept,) = store.queries.history(task_id).callbacks
        assert kept.repeats == 0  # repeated work is stored once


def test_a_callback_that_cannot_be_sent_fails_alone(store: PostgresStore) -> None:
    with together(store) as batch_of_many:
        before = batch_of_many.accept(told(1))
        no_text = batch_of_many.create(replace(NEW, reference="a\0b"))
        behind = batch_of_many.accept(told(9))
    assert before.result(PATIENCE) is behind.result(PATIENCE) is Outcome.RECORDED
    with pytest.raises(ValueError, match="NUL"):
        no_text.result(PATIENCE)


def test_a_callback_that_the_server_refuses_fails_alone(store: PostgresStore, url: str) -> None:
    for number in range(3):
        store.inbox.create_task(replace(NEW, id=f"task-{number:02}"))
    with psycopg.connect(url) as connection:
        connection.execute("alter table transitions add check (task <> 2 or status = 'created')")
    with together(store) as batch_of_many:
        answers = [batch_of_many.accept(told(number)) for number in range(3)]
    assert answers[0].result(PATIENCE) is answers[2].result(PATIENCE) is Outcome.RECORDED
    with pytest.raises(StoreUnavailable, match="violates check constraint"):
        answers[1].result(PATIENCE)
    kept = [store.queries.history(f"task-{number:02}").callbacks for number in range(3)]
    assert [[one.repeats for one in each] for each in kept] == [[0], [], [0]]


def test_after_a_failed_batch_callbacks_share_a_transaction_again(
    store: PostgresStore, url: str
) -> None:
    store.inbox.create_task(NEW)
    with pytest.raises(ValueError, match="on record already"):
        store.inbox.create_task(NEW)
    with together(store) as batch_of_many:
        answers = [batch_of_many.accept(told(number)) for number in range(3)]
    assert [answer.result(PATIENCE) for answer in answers] == [Outcome.RECORDED] * 3
    assert _transactions(url) == 1


def _transactions(url: str) -> int:
    """Return the number of transactions in which the callbacks were committed."""
    with psycopg.connect(url) as connection:
        return len(connection.execute("select distinct xmin::text from callbacks").fetchall())


def test_callbacks_of_one_task_are_recorded_in_order(store: PostgresStore) -> None:
    with together(store) as batch_of_many:
        ended = batch_of_many.accept(told(1))
        late = batch_of_many.accept(told(1, "processing"))
        again = batch_of_many.accept(told(1))
    assert ended.result(PATIENCE) is Outcome.RECORDED
    assert late.result(PATIENCE) is Outcome.STALE
    assert again.result(PATIENCE) is Outcome.DUPLICATE
    assert store.queries.task("task-01").status is Status.SUCCEEDED


def test_a_batch_contains_one_callback_per_task(store: PostgresStore) -> None:
    """Both would read the task before either changes it."""
    store.inbox.create_task(NEW)
    with together(store) as batch_of_many:
        ended = batch_of_many.accept(told(5))
        contradicted = batch_of_many.accept(told(5, "failed"))
    assert ended.result(PATIENCE) is Outcome.RECORDED
    assert contradicted.result(PATIENCE) is Outcome.CONFLICT
    moves = store.queries.history("task-05").transitions
    assert [move.status for move in moves] == ["created", "succeeded"]


def test_a_locked_task_does_not_delay_the_others(store: PostgresStore, url: str) -> None:
    for number in (1, 2):
        store.inbox.create_task(replace(NEW, id=f"task-{number:02}"))
    with psycopg.connect(url) as holder:
        holder.execute("select from tasks where id = 'task-01' for update")
        with together(store) as batch_of_many:
            held, free = batch_of_many.accept(told(1)), batch_of_many.accept(told(2))
        assert free.result(PATIENCE) is Outcome.RECORDED
        assert not held.done()
    assert held.result(PATIENCE) is Outcome.RECORDED


def test_an_unnoticed_disconnection_fails_no_callback(store: PostgresStore, url: str) -> None:
    ingest = Ingest(store, HOOKS)
    ingest.accept(told(1))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    assert ingest.accept(told(2)) is Outcome.RECORDED


def test_a_commit_without_a_response_is_not_acknowledged(
    store: PostgresStore, between: Between
) -> None:
    ingest = Ingest(store, HOOKS)
    between.cuts_behind = b"commit"
    with pytest.raises(StoreUnavailable, match="the connection was lost during the commit"):
        ingest.accept(told(1))
    between.cuts_behind = None
    assert ingest.accept(told(1)) is Outcome.DUPLICATE  # this time, it was committed
    (kept,) = store.queries.history("task-01").callbacks
    assert kept.repeats == 1  # and was not repeated without the caller's knowledge


def test_a_silent_server_is_reported_in_time(
    store: PostgresStore, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = Ingest(store, HOOKS)
    ingest.accept(told(0))
    between.is_silent.set()
    with monkeypatch.context() as patched:
        patched.setattr(group_commit, "PATIENCE", 0.2)
        patched.setattr(wire, "ANSWERS_WITHIN", 0.3)
        with pytest.raises(StoreUnavailable, match=r"no commit within 0.2 s"):
            ingest.accept(told(1))
        wait_until(lambda: not store.database.writer.is_busy)  # the connection was also abandoned
    between.is_silent.clear()
    assert ingest.accept(told(2)) is Outcome.RECORDED


def test_submitted_callbacks_are_committed_before_the_store_closes(store: PostgresStore) -> None:
    with together(store) as batch_of_many:
        answers = [batch_of_many.accept(told(1, status)) for status in ("submitted", "succeed")]
        closing = threading.Thread(target=store.close)
        closing.start()
        wait_until(lambda: store.database.writer.is_closing)
        with pytest.raises(StoreUnavailable, match="closing"):
            Ingest(store, HOOKS).accept(told(2))
    assert [answer.result(PATIENCE) for answer in answers] == [Outcome.RECORDED] * 2
    closing.join(PATIENCE)
