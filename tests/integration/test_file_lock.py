"""The file lock of SQLite: every writer holds it, one at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from receiver.stores.sqlite import SqliteStore, schema, space, writer
from receiver.stores.sqlite.writer import connect


def is_held(path: Path) -> bool:
    """Return whether the writers' lock of this file is held."""
    with Path(f"{path}-lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.mark.parametrize(
    ("module", "work", "statement"),
    [
        (space, lambda store: store.database.shrink(1), "pragma incremental_vacuum(1)"),
        (space, lambda store: store.database.shrink(0), "pragma wal_checkpoint(truncate)"),
        (schema, SqliteStore.migrate, "begin immediate"),
        (schema, SqliteStore.migrate, "pragma journal_mode = wal"),
        (writer, lambda store: store.endpoints.pause("mail", 1), "begin immediate"),
        (writer, lambda store: store.endpoints.pause("mail", 1), "commit"),
    ],
)
def test_every_writer_and_checkpoint_holds_the_lock(
    store: SqliteStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    work: Callable[[SqliteStore], object],
    statement: str,
) -> None:
    path = tmp_path / "receiver.db"
    seen: list[tuple[str, bool]] = []

    def watched(file: Path, *, read_only: bool) -> sqlite3.Connection:
        connection = connect(file, read_only=read_only)
        connection.set_trace_callback(lambda sql: seen.append((sql.lower(), is_held(path))))
        return connection

    monkeypatch.setattr(module, "connect", watched)
    work(store)
    assert not is_held(path)
    assert {held for sql, held in seen if sql == statement} == {True}


def test_only_our_user_can_open_the_lock_file(tmp_path: Path) -> None:
    """Otherwise, another user could open and hold the lock, and so block every writer."""
    before = os.umask(0)
    try:
        SqliteStore(tmp_path / "receiver.db").migrate()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "receiver.db-lock").stat().st_mode) == 0o600
