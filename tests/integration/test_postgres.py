"""The PostgreSQL store: its schema, and outages of the server."""

from __future__ import annotations

import itertools
import operator
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import procrastinate
import psycopg
import pytest

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.ingest import Ingest
from receiver.stores.postgres import PostgresStore, schema
from receiver.stores.postgres import database as postgres_database
from receiver.stores.releases import migrations
from receiver.tasks import Outcome, Status, Task
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.postgres_proxy import Between
from tests.support.postgres_server import Server, started
from tests.support.samples import body, callback, subscription

OURS = [name for name, _ in migrations("postgres")]
FOR_EVER = 10 * PATIENCE  # seconds; a failing test fails earlier than this
SENDERS = 4
_numbers = itertools.count(1)


@pytest.fixture
def server() -> Iterator[Server]:
    with started(durable=True) as made:
        yield made


@pytest.fixture
def url(postgres_url: str) -> str:
    """The URL of an empty database on the shared server."""
    name = f"empty_{os.getpid()}_{next(_numbers)}"  # several processes share the server
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return f"{postgres_url.rpartition('/')[0]}/{name}"


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    made = PostgresStore(url)
    yield made
    made.close()


def test_the_second_migration_applies_nothing(store: PostgresStore) -> None:
    with pytest.raises(SchemaMismatch, match="run: receiver migrate"):
        store.check_schema()
    theirs, *ours = store.migrate()
    assert theirs.startswith("procrastinate ")
    assert ours == OURS
    assert store.migrate() == []
    store.check_schema()


def test_six_concurrent_migrations_apply_each_once(url: str) -> None:
    stores = [PostgresStore(url) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(PostgresStore.migrate, stores))
    for one in stores:
        one.close()
    assert sorted(map(len, applied)) == [0] * 5 + [len(OURS) + 1]


def test_a_newer_schema_is_refused(store: PostgresStore, url: str) -> None:
    store.migrate()
    with psycopg.connect(url) as connection:
        connection.execute("insert into callback_receiver_migrations values ('0999_later')")
    for verb in (store.check_schema, store.migrate):
        with pytest.raises(SchemaMismatch, match="newer release"):
            verb()


def test_a_server_that_is_too_old_is_refused(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "OLDEST", 99)
    with pytest.raises(
        SchemaMismatch, match=r"the server is PostgreSQL \d\d; 99 or newer is needed"
    ):
        store.migrate()


def test_upgrades_of_procrastinate_are_applied(
    store: PostgresStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.migrate()
    theirs = tmp_path / "sql"
    shutil.copytree(Path(procrastinate.__file__).parent / "sql", theirs)
    monkeypatch.setattr(schema, "_procrastinate", lambda: theirs)
    newer = [
        theirs / "migrations" / "99.00.00_01_pre_later.sql",
        theirs / "migrations" / "99.00.00_50_post_later.sql",
    ]
    newer[0].write_text("create table of_a_later_release (n integer default '1%'::text::int)")
    with pytest.raises(SchemaMismatch, match="_01_pre_later; run: receiver migrate"):
        store.check_schema()
    assert store.migrate() == ["procrastinate 99.00.00_01_pre_later"]
    newer[1].write_text("drop table of_a_later_release")
    store.check_schema()  # optional migrations need not be applied
    assert store.migrate() == ["procrastinate 99.00.00_50_post_later"]
    with psycopg.connect(url) as connection:
        assert connection.execute("select to_regclass('of_a_later_release')").fetchone() == (None,)
    for file in newer:
        file.unlink()
    with pytest.raises(SchemaMismatch, match="newer release"):
        store.check_schema()


def test_a_failed_migration_leaves_nothing_behind(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [("0001_initial", "create table a (n integer); create table broken (;")]
    monkeypatch.setattr("receiver.stores.postgres.schema._ours", lambda: files)
    with pytest.raises(StoreUnavailable, match="syntax error"):
        store.migrate()
    with psycopg.connect(url) as connection:
        assert connection.execute("select to_regclass('a')").fetchone() == (None,)


def test_what_was_acknowledged_outlives_a_crash_and_the_store_heals(server: Server) -> None:
    store = PostgresStore(server.url)
    store.migrate()
    ingest = Ingest(store, [subscription("mail")])
    acknowledged: list[list[str]] = [[] for _ in range(SENDERS)]
    refused = threading.Event()
    stop = threading.Event()

    def send(sender: int) -> None:
        for number in itertools.count():
            task = f"task-{sender}-{number}"
            try:
                ingest.accept(callback(body(), task))
            except StoreUnavailable:
                refused.set()
            else:
                acknowledged[sender].append(task)
            if stop.is_set():
                return

    def each_goes_on() -> None:
        """Wait until every sender has had 15 more callbacks acknowledged."""
        wanted = [len(tasks) + 15 for tasks in acknowledged]
        wait_until(lambda: all(map(operator.ge, map(len, acknowledged), wanted)))

    with ThreadPoolExecutor(SENDERS) as pool:
        senders = [pool.submit(send, number) for number in range(SENDERS)]
        try:
            each_goes_on()
            server.stop(at_once=True)
            assert refused.wait(PATIENCE)
            server.start()
            each_goes_on()  # the same store, without being reopened
        finally:
            stop.set()
        for sender in senders:
            sender.result(PATIENCE)
    on_record = {task.id for task in store.lists.tasks(limit=100_000)}
    store.close()
    assert {task for tasks in acknowledged for task in tasks} <= on_record


def test_no_connection_left_is_said_in_time(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "PATIENCE", FOR_EVER)
    store.migrate()
    with ThreadPoolExecutor(postgres_database.MAX_CONNECTIONS) as pool:
        with psycopg.connect(url) as holder:
            holder.execute("lock table tasks in access exclusive mode")
            held = [
                pool.submit(store.lists.tasks) for _ in range(postgres_database.MAX_CONNECTIONS)
            ]
            wait_until(lambda: waiting_for_locks(url) == postgres_database.MAX_CONNECTIONS)
            with monkeypatch.context() as patched:
                patched.setattr(postgres_database, "PATIENCE", 0.5)
                with pytest.raises(StoreUnavailable):
                    store.lists.tasks()
        assert [one.result(PATIENCE) for one in held] == [[]] * postgres_database.MAX_CONNECTIONS
    assert store.lists.tasks() == []


def waiting_for_locks(url: str) -> int:
    """Return how many connections to this database wait for a lock."""
    statement = (
        "select count(*) from pg_stat_activity "
        "where datname = current_database() and wait_event_type = 'Lock'"
    )
    with psycopg.connect(url) as connection:
        row = connection.execute(statement).fetchone()
    return row[0] if row else 0


def test_what_fails_at_the_commit_is_not_acknowledged(store: PostgresStore, url: str) -> None:
    store.migrate()
    with psycopg.connect(url) as connection:
        connection.execute(
            "create function refuse() returns trigger language plpgsql as "
            "$$ begin raise 'the disk is full'; end $$"
        )
        connection.execute(
            "create constraint trigger at_commit after insert on tasks "
            "deferrable initially deferred for each row execute function refuse()"
        )
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        Ingest(store, [subscription("mail")]).accept(callback())
    assert store.lists.tasks() == []
    with psycopg.connect(url) as connection:
        connection.execute("drop trigger at_commit on tasks")
    Ingest(store, []).accept(callback())  # the connection can be used as before
    assert len(store.lists.tasks()) == 1


def test_a_callback_costs_few_round_trips(store: PostgresStore, url: str) -> None:
    """With a server on another machine, round trips are most of a callback's cost."""
    store.migrate()
    port = urlsplit(url).port
    assert port
    between = Between(port)
    far = PostgresStore(url.replace(str(port), str(between.port)))
    ingest = Ingest(far, [subscription("mail"), subscription("slack")])
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, 1, 1))
    for number in range(7):  # frequent statements are prepared
        ingest.accept(callback(body(), f"task-0-{number}"))
    before = between.count
    assert ingest.accept(callback()) is Outcome.RECORDED
    # Find the task; detect duplicates; transition, deliveries, jobs, commit.
    assert between.count - before <= 3
    before = between.count
    assert ingest.accept(callback(body(), "task-of-others")) is Outcome.RECORDED
    assert between.count - before <= 4  # and the task is recorded
    far.close()
    between.close()


def test_a_closed_store_connects_no_more(store: PostgresStore, url: str) -> None:
    store.migrate()
    store.close()
    with pytest.raises(StoreUnavailable, match="closing"):
        store.lists.tasks()
    connected = "select pid from pg_stat_activity where datname = current_database()"
    with psycopg.connect(url, autocommit=True) as connection:
        wait_until(lambda: len(connection.execute(connected).fetchall()) == 1)  # this connection


def test_a_database_that_is_not_there_is_said(postgres_url: str) -> None:
    nowhere = PostgresStore(f"{postgres_url.rpartition('/')[0]}/nowhere")
    with pytest.raises(StoreUnavailable, match='database "nowhere" does not exist'):
        nowhere.check_schema()
    nowhere.close()


def test_a_server_that_is_not_there_is_said_at_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool would retry until its timeout."""
    monkeypatch.setattr(postgres_database, "PATIENCE", FOR_EVER)
    nobody = PostgresStore(f"postgresql://user:password@127.0.0.1:{free_port()}/receiver")
    with pytest.raises(StoreUnavailable, match="Connection refused") as caught:
        nobody.check_schema()
    assert "password" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    nobody.close()
