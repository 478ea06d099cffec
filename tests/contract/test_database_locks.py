"""Other means that serialise writers: locks on a database, unique keys, and counting slots."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore, schema
from receiver.stores.postgres import database as postgres_database
from receiver.stores.postgres.batch import commit_together
from receiver.stores.postgres.wire import Wire
from receiver.stores.sql.database import Session
from receiver.stores.sql.locks import LOCK_TASK
from receiver.stores.sqlite import SqliteStore
from receiver.stores.sqlite import schema as sqlite_schema
from receiver.stores.sqlite.writer import SqliteWriter, connect, file_lock
from receiver.tasks import Status, Task
from tests.support.patience import PATIENCE, wait_until

# Keys besides the row keys that prevent two writers from recording the same thing twice, by table.
KEYS = {
    ("tasks", ("id",), False),
    ("callbacks", ("task", "digest"), False),
    ("callbacks", ("provider", "digest"), True),  # of no task
    ("transitions", ("task", "status"), False),
    ("deliveries", ("transition", "hook"), False),
    ("attempts", ("delivery", "number"), False),
    ("files", ("delivery", "media_index"), False),
    ("inputs", ("task", "name"), False),
    ("endpoints", ("hook",), False),
    ("trials", ("hook",), False),
    ("processes", ("name",), False),
    ("clocks", ("boot",), False),
    ("pauses", ("name",), False),
    ("pacing", ("hook",), False),
    ("counters", ("name", "provider"), False),
    ("measures", ("name", "labels"), False),
    ("idempotency_keys", ("key",), False),
}
_UNIQUE = """
select tables.relname, array(
  select attname::text from unnest(indkey) with ordinality as key (number, place)
  join pg_attribute on attrelid = indrelid and attnum = key.number order by place
) as columns, indpred is not null as is_partial
from pg_index join pg_class as tables on tables.oid = indrelid
where indisunique and tables.relnamespace = 'public'::regnamespace
"""
_WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock'
"""
_HELD = """
select mode from pg_locks where pid = pg_backend_pid() and granted
  and (locktype = 'advisory' or relation = 'tasks'::regclass) order by mode
"""


class Database:
    """One record for several stores, and a connection with which the test observes it."""

    def __init__(self, make: Callable[[], Store], waiting: Callable[[], int]) -> None:
        self.make = make
        self.waiting = waiting  # how many connections wait for a lock


@pytest.fixture(params=["sqlite", "postgres"])
def database(
    request: pytest.FixtureRequest,
    path: Path,
    flocks: Flocks,
) -> Iterator[Database]:
    if request.param == "sqlite":
        yield from _closing(lambda: SqliteStore(path), flocks.waiting)
        return
    url = request.getfixturevalue("url")
    with psycopg.connect(url, autocommit=True) as connection:
        yield from _closing(lambda: PostgresStore(url), lambda: _one(connection, _WAITING))


def _closing(make: Callable[[], Store], waiting: Callable[[], int]) -> Iterator[Database]:
    with ExitStack() as stack:

        def made() -> Store:
            store = make()
            stack.callback(store.close)
            return store

        yield Database(made, waiting)


@pytest.fixture
def url(fresh: Callable[[], str]) -> str:
    """A migrated PostgreSQL database."""
    return fresh()


@pytest.fixture
def path(tmp_path: Path, migrated: Callable[[Path], SqliteStore]) -> Path:
    """A migrated SQLite file."""
    migrated(tmp_path / "receiver.db").close()
    return tmp_path / "receiver.db"


class Flocks:
    """Counts the threads that wait for a file lock."""

    def __init__(self) -> None:
        self._flock = fcntl.flock
        self._mutex = threading.Lock()
        self._waiting = 0

    def waiting(self) -> int:
        return self._waiting

    def flock(self, descriptor: Any, operation: int) -> None:
        self._add(1)
        try:
            self._flock(descriptor, operation)
        finally:
            self._add(-1)

    def _add(self, more: int) -> None:
        with self._mutex:
            self._waiting += more


@pytest.fixture
def flocks(monkeypatch: pytest.MonkeyPatch) -> Flocks:
    flocks = Flocks()
    monkeypatch.setattr(fcntl, "flock", flocks.flock)
    return flocks


def _one(connection: psycopg.Connection[Any], sql: str) -> Any:
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return row[0]


# -- `alone`: check, then write


def test_one_store_at_a_time_is_alone(database: Database) -> None:
    first, second = database.make(), database.make()
    inside: list[str] = []

    def enter() -> None:
        with second.database.alone():
            inside.append("second")

    with ThreadPoolExecutor(1) as pool:
        with first.database.alone():
            future = pool.submit(enter)
            wait_until(lambda: database.waiting() or future.done())
            inside.append("first")
        future.result(PATIENCE)
    assert inside == ["first", "second"]


def test_threads_that_wait_to_be_alone_leave_connections_to_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread of a process waits in the database, the others wait in the process."""
    monkeypatch.setattr(postgres_database, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(postgres_database, "PATIENCE", PATIENCE)
    store = PostgresStore(url)
    begun = threading.Semaphore(0)

    def enter() -> None:
        begun.release()
        with store.database.alone():
            pass

    with psycopg.connect(url, autocommit=True) as other, ThreadPoolExecutor(5) as pool:
        _one(other, f"select pg_advisory_lock({postgres_database.ALONE_LOCK})")
        futures = [pool.submit(enter) for _ in range(4)]
        for _ in futures:
            assert begun.acquire(timeout=PATIENCE)
        wait_until(lambda: _one(other, _WAITING))
        reading = pool.submit(lambda: [store.lists.tasks() for _ in range(50)])
        wait_until(lambda: reading.done() or _one(other, _WAITING) > 1)
        waiting = _one(other, _WAITING)
        _one(other, f"select pg_advisory_unlock({postgres_database.ALONE_LOCK})")
        reading.result(PATIENCE)
        for future in futures:
            future.result(PATIENCE)
    store.close()
    assert waiting == 1


# -- locks in a batch


def test_a_batch_takes_every_kind_of_lock(url: str) -> None:
    store = PostgresStore(url)
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, 1, 1))
    store.close()

    def work(session: Session) -> tuple[int, list[str]]:
        session.lock_name("a name")
        session.lock(LOCK_TASK, ("task-1",))
        row = session.execute_locked(LOCK_TASK, ("task-1",)).fetchone()
        locks = session.execute(_HELD).fetchall()
        return row["seq"], [one["mode"] for one in locks]

    batch_of = Wire(url)
    try:
        assert commit_together(batch_of, [work], lambda: None) == [
            (1, ["ExclusiveLock", "RowShareLock"])
        ]
    finally:
        batch_of.close()


# -- migrations


def test_a_migration_of_postgres_waits_for_another(url: str) -> None:
    store = PostgresStore(url)
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(url, autocommit=True) as other,
    ):
        _one(other, f"select pg_advisory_lock({schema.LOCK})")
        future = pool.submit(store.migrate)
        wait_until(lambda: _one(other, _WAITING) or future.done())
        is_done = future.done()
        _one(other, f"select pg_advisory_unlock({schema.LOCK})")
        assert future.result(PATIENCE) == []
    store.close()
    assert not is_done


# -- SQLite: every writer holds the file lock


@pytest.mark.parametrize(
    "work",
    [
        lambda store: store.migrate(),
        lambda store: store.database.shrink(1),
        lambda store: store.inbox.create_task(Task("task-1", "kling", Status.CREATED, 1, 1)),
    ],
    ids=["migrate", "give_back", "create_task"],
)
def test_every_writer_waits_for_the_file_lock(
    path: Path, flocks: Flocks, work: Callable[[SqliteStore], object]
) -> None:
    store = SqliteStore(path)
    with ThreadPoolExecutor(1) as pool:
        with file_lock(path):
            future = pool.submit(work, store)
            wait_until(lambda: flocks.waiting() or future.done())
            is_done = future.done()
        future.result(PATIENCE)
    store.close()
    assert not is_done


def test_no_other_program_writes_during_a_batch(path: Path) -> None:
    """This holds from the first statement, even a query, so that a later write cannot fail."""
    writer = SqliteWriter(path)
    other = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("select * from pauses").fetchall()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("insert into pauses values ('other', 1)")

    try:
        writer.run(work)
    finally:
        writer.close()
        other.close()


def test_no_other_program_writes_during_a_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds from the first statement of the migration, which determines the missing ones."""
    path = tmp_path / "receiver.db"
    seen: list[str] = []
    answers: list[str] = []

    def look(sql: str) -> None:
        seen.append(sql)
        if len(seen) > 1 and seen[-2].startswith("begin"):
            other = sqlite3.connect(path, timeout=0, isolation_level=None)
            try:
                other.execute("create table others (a)")
                answers.append("written")
            except sqlite3.OperationalError as error:
                answers.append(str(error))
            finally:
                other.close()

    def watched(path: Path, *, read_only: bool) -> sqlite3.Connection:
        connection = connect(path, read_only=read_only)
        connection.set_trace_callback(look)
        return connection

    monkeypatch.setattr(sqlite_schema, "connect", watched)
    SqliteStore(path).migrate()
    assert answers == ["database is locked"]


# -- PostgreSQL: counters are spread over slots


def test_a_slot_in_which_another_transaction_counts_is_not_used(url: str) -> None:
    with (
        psycopg.connect(url, autocommit=True) as one,
        psycopg.connect(url) as other,
    ):
        own = other.info.backend_pid % 32
        _one(one, f"select pg_advisory_lock(4217003, {own})")
        assert _one(other, "select counting_slot()") == (own + 1) % 32
        other.rollback()
        _one(one, f"select pg_advisory_unlock(4217003, {own})")
        assert _one(other, "select counting_slot()") == own


# -- unique keys


def test_sqlite_has_every_unique_key(path: Path) -> None:
    connection = sqlite3.connect(path)
    found = set()
    for table in {table for table, _, _ in KEYS}:
        for _, index, is_unique, _, is_partial in connection.execute(f"pragma index_list({table})"):
            columns = connection.execute(f"pragma index_info({index})").fetchall()
            if is_unique:
                found.add((table, tuple(name for _, _, name in columns), bool(is_partial)))
    connection.close()
    assert found >= KEYS


def test_postgres_has_every_unique_key(url: str) -> None:
    with psycopg.connect(url) as connection:
        found = {
            (table, tuple(columns), is_partial)
            for table, columns, is_partial in connection.execute(_UNIQUE.encode())
        }
    assert found >= KEYS
