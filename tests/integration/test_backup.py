"""A backup made while callbacks arrive, as docs/deploy.md describes, can be restored."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from receiver.errors import NotFound
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.support.installation import ROOT
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback

PLACE = "/var/lib/callback-receiver"
DOCS = (ROOT / "docs" / "deploy.md").read_text()


def statement(folder: Path) -> str:
    """Return the statement for sqlite3 on the page."""
    (told,) = set(re.findall(rf"sqlite3 {PLACE}/receiver\.db \"(.*)\"$", DOCS, re.MULTILINE))
    return str(told).replace(PLACE, str(folder))


def restore(folder: Path) -> None:
    """Run the page's commands that move files."""
    block = DOCS.split("**Restore.**")[1].split("```")[1]
    moves = [line for line in block.splitlines() if " install " in line or "'mv " in line]
    assert len(moves) == 3
    lines = "\n".join(moves).replace("sudo ", "").replace(PLACE, str(folder))
    lines = lines.replace("-o callback-receiver -g callback-receiver ", "")
    subprocess.run(["/bin/sh", "-ec", lines], cwd=folder, check=True, timeout=PATIENCE)


@contextmanager
def cut_off(folder: Path, store: SqliteStore) -> Iterator[None]:
    """Close the record as a power cut would: with commits that are only in the -wal file."""
    with closing(sqlite3.connect(folder / "receiver.db")) as other:
        other.execute("select count(*) from callbacks").fetchone()
        store.close()
        assert (folder / "receiver.db-wal").stat().st_size
        yield


def accept(store: SqliteStore, task: str) -> None:
    Ingest(store, []).accept(callback(body(task_id=f"at-kling-{task}"), task))


def made_while_busy(folder: Path, store: SqliteStore) -> set[str]:
    """Copy the record while a thread sends callbacks; return the tasks it had before the copy."""
    stop = threading.Event()
    taken: list[str] = []

    def take() -> None:
        while not stop.is_set():
            accept(store, f"task-{len(taken)}")
            taken.append(f"task-{len(taken)}")

    taking = threading.Thread(target=take)
    taking.start()
    try:
        wait_until(lambda: len(taken) >= 50)
        before = set(taken)
        with closing(sqlite3.connect(folder / "receiver.db")) as connection:
            connection.execute(statement(folder))
        wait_until(lambda: len(taken) >= len(before) + 50)
    finally:
        stop.set()
        taking.join(PATIENCE)
    return before


def test_a_backup_is_restored_completely(tmp_path: Path, store: SqliteStore) -> None:
    before = made_while_busy(tmp_path, store)
    with cut_off(tmp_path, store):
        restore(tmp_path)
    restored = SqliteStore(tmp_path / "receiver.db")
    try:
        assert restored.migrate() == []
        restored.check_schema()
        for task in before:
            assert restored.queries.history(task).callbacks
        accept(restored, "after")
        assert restored.queries.history("after").callbacks
    finally:
        restored.close()


def test_a_backup_has_the_settings_of_the_file(tmp_path: Path, store: SqliteStore) -> None:
    made_while_busy(tmp_path, store)
    with cut_off(tmp_path, store):
        restore(tmp_path)
    restored = SqliteStore(tmp_path / "receiver.db")
    restored.migrate()  # required, as the page explains, because the copy is not in WAL mode
    accept(restored, "after")
    restored.close()
    with closing(sqlite3.connect(tmp_path / "receiver.db")) as connection:
        settings = {
            name: connection.execute(f"pragma {name}").fetchone()[0]
            for name in ("integrity_check", "auto_vacuum", "journal_mode")
        }
    assert settings == {"integrity_check": "ok", "auto_vacuum": 2, "journal_mode": "wal"}


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 command here")
def test_the_command_prints_the_same(tmp_path: Path, store: SqliteStore) -> None:
    accept(store, "task-1")
    command = [str(shutil.which("sqlite3")), str(tmp_path / "receiver.db"), statement(tmp_path)]
    subprocess.run(command, check=True, timeout=PATIENCE)
    copy = SqliteStore(tmp_path / "backup.db")
    assert copy.queries.history("task-1").callbacks
    copy.close()
    assert (
        subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode != 0
    )


SCRIPT = ROOT / "deploy/backup/backup"
DAY = 24 * 3600
needs_sqlite3 = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 command")


def backup(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the nightly backup, as its unit does."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}",
        **settings,
    }
    return subprocess.run(
        [str(SCRIPT)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def copies(folder: Path) -> list[Path]:
    return sorted((folder / "backups").iterdir())


@needs_sqlite3
def test_the_nightly_copy_is_uploaded_and_restored(tmp_path: Path, store: SqliteStore) -> None:
    (tmp_path / "bucket").mkdir()
    accept(store, "task-1")
    upload = f'cp "$BACKUP_FILE" {tmp_path}/bucket/"$BACKUP_NAME"'
    done = backup(tmp_path, BACKUP_UPLOAD=upload)
    assert done.returncode == 0, done.stderr
    accept(store, "task-2")
    (kept,) = copies(tmp_path)
    assert done.stdout == f"backup: {kept}\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    (uploaded,) = (tmp_path / "bucket").iterdir()
    assert re.fullmatch(r"receiver-\d{8}T\d{6}Z\.db", uploaded.name)
    uploaded.rename(tmp_path / "backup.db")
    with cut_off(tmp_path, store):
        restore(tmp_path)
    restored = SqliteStore(tmp_path / "receiver.db")
    try:
        assert restored.migrate() == []
        assert restored.queries.history("task-1").callbacks
        with pytest.raises(NotFound):
            restored.queries.task("task-2")
        accept(restored, "task-3")
    finally:
        restored.close()


@needs_sqlite3
def test_old_copies_are_deleted_only_after_a_complete_backup(
    tmp_path: Path, store: SqliteStore
) -> None:
    accept(store, "task-1")
    folder = tmp_path / "backups"
    folder.mkdir()
    for name, days in (("receiver-old.db", 15), ("receiver-new.db", 13), ("other.db", 99)):
        (folder / name).touch()
        at = (folder / name).stat().st_mtime - days * DAY
        os.utime(folder / name, (at, at))
    (folder / "receiver-broken.db.part").touch()  # of a backup that a power cut ended
    failed = backup(tmp_path, BACKUP_UPLOAD="false")
    assert failed.returncode != 0
    assert (folder / "receiver-old.db").exists()
    assert backup(tmp_path, BACKUP_DIR=str(folder)).returncode == 0
    names = {path.name for path in copies(tmp_path)}
    assert {"receiver-new.db", "other.db"} < names
    assert not names & {"receiver-old.db", "receiver-broken.db.part"}


@needs_sqlite3
@pytest.mark.parametrize(
    "url", ["postgresql://shop.example/receiver", "sqlite:///data/receiver.db", ""]
)
def test_another_database_is_refused(tmp_path: Path, url: str) -> None:
    done = backup(tmp_path, DATABASE_URL=url)
    assert done.returncode == 1
    assert done.stderr == ("backup: DATABASE_URL names no SQLite database with an absolute path\n")


@needs_sqlite3
def test_a_missing_or_damaged_database_leaves_no_copy(tmp_path: Path) -> None:
    assert backup(tmp_path).returncode != 0
    assert not (tmp_path / "receiver.db").exists()
    (tmp_path / "receiver.db").write_bytes(b"SQLite format 3\0" + bytes(9_000))
    assert backup(tmp_path).returncode != 0
    assert [path.name for path in copies(tmp_path) if path.suffix == ".db"] == []
