"""`receiver migrate`: safe to repeat and to run concurrently, and strict about versions."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from receiver.errors import SchemaMismatch
from receiver.stores.releases import OPTIONAL, migrations, refuse_older
from receiver.stores.sqlite import SqliteStore, schema
from receiver.stores.sqlite.writer import connect
from tests.support.patience import PATIENCE

ENVIRONMENT = {"CALLBACK_SECRETS": "a-secret-for-the-tests-only", "PATH": "/usr/bin:/bin"}


def pragma(path: Path, name: str) -> object:
    connection = connect(path, read_only=False)
    try:
        return connection.execute(f"pragma {name}").fetchone()[0]
    finally:
        connection.close()


def test_the_second_run_applies_nothing(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "deep" / "receiver.db")) as store:
        assert store.migrate() == [name for name, _ in migrations("sqlite")]
        assert store.migrate() == []
        store.check_schema()


def test_the_file_is_set_up_from_the_first_page_on(tmp_path: Path) -> None:
    path = tmp_path / "receiver.db"
    SqliteStore(path).migrate()
    assert pragma(path, "journal_mode") == "wal"
    assert pragma(path, "auto_vacuum") == 2  # incremental


def test_a_restored_copy_that_lost_its_wal_mode_is_refused_until_it_is_migrated(
    tmp_path: Path,
) -> None:
    SqliteStore(tmp_path / "receiver.db").migrate()
    connection = connect(tmp_path / "receiver.db", read_only=False)
    connection.execute("vacuum into ?", (str(tmp_path / "copy.db"),))
    connection.close()
    with closing(SqliteStore(tmp_path / "copy.db")) as copy:
        with pytest.raises(SchemaMismatch, match="not in WAL mode; run: receiver migrate"):
            copy.check_schema()
        assert copy.migrate() == []
        copy.check_schema()


def test_six_concurrent_migrations_apply_each_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'data' / 'receiver.db'}"
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "receiver", "migrate"],
            env={**ENVIRONMENT, "DATABASE_URL": url},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    said = [racer.communicate(timeout=PATIENCE)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 6
    assert sum("applied 0001_initial" in text for text in said) == 1
    with closing(SqliteStore(tmp_path / "data" / "receiver.db")) as store:
        store.check_schema()


def test_an_unmigrated_database_says_what_to_run(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "receiver.db")) as store:
        with pytest.raises(SchemaMismatch, match="receiver migrate"):
            store.check_schema()
        assert not (tmp_path / "receiver.db").exists()
        sqlite3.connect(tmp_path / "receiver.db").close()
        with pytest.raises(SchemaMismatch, match="receiver migrate"):
            store.check_schema()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "receiver.db")
    store.migrate()
    connection = connect(tmp_path / "receiver.db", read_only=False)
    connection.execute(
        "insert into _sqlite_migrations (migration_set, name, applied_at) "
        "values ('callback-receiver', '0999_later', '2030')"
    )
    connection.close()
    for verb in (store.check_schema, store.migrate):
        with pytest.raises(SchemaMismatch, match="newer release"):
            verb()
    store.close()


def test_a_database_one_release_older_is_served() -> None:
    """New code may start before `receiver migrate` if it does not need the new columns."""
    known = ["0001_initial", "0002_upkeep", "0003_of_this_release"]
    refuse_older("db", known[:2], known, optional={"0003_of_this_release"})
    with pytest.raises(SchemaMismatch, match="db lacks 0003_of_this_release; run: receiver"):
        refuse_older("db", known[:2], known, optional=set())
    with pytest.raises(SchemaMismatch, match="lacks 0002_upkeep"):
        refuse_older("db", known[:1], known, optional={"0003_of_this_release"})


def test_optional_migrations_are_of_this_release_and_in_both_stores() -> None:
    names = [[name for name, _ in migrations(store)] for store in ("sqlite", "postgres")]
    assert names[0] == names[1]  # the same numbers and names
    assert set(OPTIONAL) <= set(names[0][1:])


def test_a_failed_migration_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [("0001_initial", "create table a (n integer);\ncreate table broken (;\n")]
    monkeypatch.setattr(schema, "_files", lambda: files)
    path = tmp_path / "receiver.db"
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(path)
    connection = connect(path, read_only=True)
    names = {row[0] for row in connection.execute("select name from sqlite_master")}
    connection.close()
    assert "a" not in names
