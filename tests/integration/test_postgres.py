"""PostgreSQL as the record: its schema, and what happens when it goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest

from postgres_server import Server, started
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.ingest import Ingest
from receiver.stores.postgres import PostgresStore, connections
from samples import body, callback, subscription

EVERYTHING = ["0001_initial", "0002_upkeep", "0003_overview"]


@pytest.fixture
def server() -> Iterator[Server]:
    with started(durable=True) as made:
        yield made


@pytest.fixture
def store(server: Server) -> Iterator[PostgresStore]:
    made = PostgresStore(server.url)
    yield made
    made.close()


def test_the_second_migration_applies_nothing(store: PostgresStore) -> None:
    with pytest.raises(SchemaMismatch, match="run: receiver migrate"):
        store.check_schema()
    assert store.migrate() == EVERYTHING
    assert store.migrate() == []
    store.check_schema()


def test_six_releases_at_once_apply_it_once(server: Server) -> None:
    stores = [PostgresStore(server.url) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(PostgresStore.migrate, stores))
    for one in stores:
        one.close()
    assert sorted(applied) == [[]] * 5 + [EVERYTHING]


def test_a_newer_schema_is_refused(store: PostgresStore, server: Server) -> None:
    store.migrate()
    with psycopg.connect(server.url) as connection:
        connection.execute("insert into callback_receiver_migrations values ('0999_later')")
    for verb in (store.check_schema, store.migrate):
        with pytest.raises(SchemaMismatch, match="newer release"):
            verb()


def test_a_failed_migration_leaves_nothing_behind(
    store: PostgresStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [("0001_initial", "create table a (n integer); create table broken (;")]
    monkeypatch.setattr("receiver.stores.postgres.schema._files", lambda: files)
    with pytest.raises(psycopg.errors.SyntaxError):
        store.migrate()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("select to_regclass('a')").fetchone() == (None,)


def test_what_was_acknowledged_outlives_a_crash_and_the_store_heals(
    store: PostgresStore, server: Server
) -> None:
    store.migrate()
    ingest = Ingest(store, [subscription("mail")])
    acknowledged: list[str] = []
    refused: list[float] = []
    stop = threading.Event()

    def send(sender: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            task, began = f"task-{sender}-{number}", time.monotonic()
            try:
                ingest.accept(callback(body(), task))
            except StoreUnavailable:
                refused.append(time.monotonic() - began)
            else:
                acknowledged.append(task)

    def until(condition: bool | None = None, count: int = 0) -> None:
        end = time.monotonic() + 60
        while len(acknowledged) < count or (condition and not refused):
            assert time.monotonic() < end
            time.sleep(0.02)

    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for sender in senders:
        sender.start()
    try:
        until(count=50)
        server.stop(at_once=True)
        until(condition=True)
        server.start()
        until(count=len(acknowledged) + 50)  # the same store, without a word to it
    finally:
        stop.set()
        for sender in senders:
            sender.join(30)
    on_record = {task.id for task in store.tasks(limit=100_000)}
    assert set(acknowledged) <= on_record
    assert max(refused) < 20  # nobody hangs


def test_no_connection_left_is_said_in_time(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.5)
    store.migrate()
    began = time.monotonic()
    with ExitStack() as stack:
        for _ in range(connections.MOST):
            stack.enter_context(store._read())
        with pytest.raises(StoreUnavailable):
            store.tasks()
    assert time.monotonic() - began < 20
    assert store.tasks() == []


def test_a_database_that_is_not_there_is_said(server: Server) -> None:
    nowhere = PostgresStore(server.url.replace("/postgres", "/nowhere"))
    with pytest.raises(StoreUnavailable):
        nowhere.check_schema()
    nowhere.close()
