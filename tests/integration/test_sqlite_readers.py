"""The reading connections of a SQLite store: shared by all threads, and closed with it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from receiver.cli import main
from receiver.config.settings import Settings
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.stores.sqlite import SqliteStore, readers, writer
from receiver.web import create_app
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Every reading connection that was opened."""
    made: list[sqlite3.Connection] = []

    def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
        made.append(writer.connect(path, read_only=read_only))
        return made[-1]

    monkeypatch.setattr(readers, "connect", connect)
    return made


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("select 1")
    except sqlite3.ProgrammingError:
        return True
    return False


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_threads_one_after_another_share_one_connection(
    store: SqliteStore, opened: list[sqlite3.Connection]
) -> None:
    for _ in range(20):
        in_thread(store.lists.tasks)
    assert len(opened) == 1
    assert not is_closed(opened[0])


def test_overlapping_reads_use_different_connections(
    store: SqliteStore, opened: list[sqlite3.Connection]
) -> None:
    with store.database.reading() as first:
        in_thread(store.lists.tasks)
        with store.database.reading() as second:
            assert first is not second
    assert len(opened) == 2


def test_closing_the_store_closes_every_connection(
    store: SqliteStore, opened: list[sqlite3.Connection]
) -> None:
    with store.database.reading():
        in_thread(store.lists.tasks)
    in_thread(lambda: store.database.wait_for_commit(0, threading.Event()))
    assert len(opened) == 3
    store.close()
    assert all(map(is_closed, opened))


def test_a_connection_in_use_is_closed_when_its_read_ends(
    store: SqliteStore, opened: list[sqlite3.Connection]
) -> None:
    with store.database.reading() as connection:
        store.close()
        assert connection.execute("select count(*) from tasks").fetchone()[0] == 0
    assert is_closed(connection)
    store.lists.tasks()
    assert all(map(is_closed, opened))


def test_after_an_error_no_connection_is_reused(
    store: SqliteStore, opened: list[sqlite3.Connection]
) -> None:
    with store.database.reading():
        in_thread(store.lists.tasks)
    with pytest.raises(StoreUnavailable), store.database.reading() as connection:
        connection.execute("select * from nowhere")
    assert len(opened) == 2
    assert all(map(is_closed, opened))
    assert store.lists.tasks() == []


def test_a_waiting_thread_does_not_hide_a_commit_from_another(store: SqliteStore) -> None:
    stop, ready, go = threading.Event(), threading.Event(), threading.Event()
    woken = threading.Event()

    def wait() -> None:
        store.database.wait_for_commit(0, stop)
        ready.set()
        assert go.wait(PATIENCE)
        store.database.wait_for_commit(PATIENCE, stop)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert ready.wait(PATIENCE)
    store.database.wait_for_commit(0, stop)
    store.activity.heartbeat("worker", "worker", 1)
    store.database.wait_for_commit(PATIENCE, stop)  # this thread notices the commit first
    go.set()
    thread.join(PATIENCE / 2)
    is_woken = woken.is_set()
    stop.set()
    thread.join(PATIENCE)
    assert is_woken


def test_a_replaced_file_counts_as_a_commit(
    store: SqliteStore, tmp_path: Path, migrated: Callable[[Path], SqliteStore]
) -> None:
    stop = threading.Event()
    store.database.wait_for_commit(0, stop)
    before = store.database.readers.version()
    migrated(tmp_path / "other.db").close()
    (tmp_path / "other.db").replace(tmp_path / "receiver.db")
    store.database.wait_for_commit(PATIENCE, stop)
    assert store.database.readers.version() != before


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("arguments", [["tasks"], ["endpoints"], ["deliveries", "--json"]])
def test_a_command_closes_what_it_opened(
    opened: list[sqlite3.Connection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/receiver.db")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert opened
    assert all(map(is_closed, opened))


@pytest.mark.usefixtures("store")
def test_a_connection_that_cannot_be_used_is_closed(
    opened: list[sqlite3.Connection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sqlite3.connect(tmp_path / "receiver.db") as connection:
        connection.execute("delete from _sqlite_migrations where name like '0008%'")
    connection.close()
    with pytest.raises(SchemaMismatch):
        create_app(Settings(f"sqlite:///{tmp_path}/receiver.db", (SECRET,)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/receiver.db")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    assert CliRunner().invoke(main, ["tasks"]).exit_code == 1
    assert len(opened) == 2
    assert all(map(is_closed, opened))
