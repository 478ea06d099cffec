"""Another program changes the files of an open SQLite database: nothing acknowledged is lost.

A process that is killed leaves only files that have names. `named` copies those files, as the next
start finds them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import pytest

from receiver.doctor import record
from receiver.errors import StoreUnavailable
from receiver.stores.sql.metrics import FILES_CHANGED
from receiver.stores.sqlite import SqliteStore, files, writer
from receiver.stores.sqlite import database as sqlite_database
from receiver.stores.sqlite.session import SqliteSession
from receiver.tasks import Status, Task
from tests.support.installation import ROOT
from tests.support.patience import wait_until

Change = Callable[[Path], None]
BEFORE = 20


def removes(*suffixes: str) -> Change:
    def change(database: Path) -> None:
        for suffix in suffixes:
            Path(f"{database}{suffix}").unlink(missing_ok=True)

    return change


def replaces(suffix: str, content: bytes) -> Change:
    def change(database: Path) -> None:
        new = database.with_name("new")
        new.write_bytes(content)
        new.replace(f"{database}{suffix}")

    return change


def is_opened_anew(database: Path) -> None:
    """Replace the files like a program that starts after they were removed."""
    removes("-wal", "-shm")(database)
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").touch()


CHANGES = {
    "-wal removed": removes("-wal"),
    "-shm removed": removes("-shm"),
    "both removed": removes("-wal", "-shm"),
    "all but the database removed": removes("-wal", "-shm", "-lock"),
    "-wal replaced by an empty file": replaces("-wal", b""),
    "-wal replaced by another file": replaces("-wal", b"not a log" * 1000),
    "-shm replaced by an empty file": replaces("-shm", b""),
    "-shm replaced by another file": replaces("-shm", bytes(32768)),
    "both are new and empty": is_opened_anew,
}
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@pytest.fixture
def database(store: SqliteStore, tmp_path: Path) -> Path:
    """The file of a store with connections of both kinds, and commits in the log."""
    for number in range(BEFORE):
        store.activity.heartbeat(f"before-{number}", "web", 1 << 50)
    assert store.activity.last_seen("web")
    store.database.wait_for_commit(0, threading.Event())
    return tmp_path / "receiver.db"


def named(database: Path) -> set[str]:
    """Return the heartbeats that would be on record after all processes were killed."""
    folder = database.with_name("killed")
    folder.mkdir()
    for suffix in ("", "-wal"):
        if Path(f"{database}{suffix}").exists():
            shutil.copy(f"{database}{suffix}", folder)
    with closing(sqlite3.connect(folder / database.name)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        found = {name for (name,) in connection.execute("select name from processes")}
    shutil.rmtree(folder)
    return found


def everything(*more: str) -> set[str]:
    return {f"before-{number}" for number in range(BEFORE)} | set(more)


@changes
def test_what_was_acknowledged_outlives_a_kill(
    store: SqliteStore, database: Path, change: Change
) -> None:
    change(database)
    store.activity.heartbeat("first", "web", 1 << 50)
    assert named(database) == everything("first")
    store.activity.heartbeat("second", "web", 1 << 50)
    assert named(database) == everything("first", "second")
    assert store.activity.last_seen("web")


@changes
def test_what_was_acknowledged_outlives_every_change(
    store: SqliteStore, database: Path, change: Change
) -> None:
    acknowledged: set[str] = set()
    for number in range(4):
        change(database)
        for name in (f"{number}-first", f"{number}-second"):
            store.activity.heartbeat(name, "web", 1 << 50)
            acknowledged.add(name)
        assert named(database) == everything(*acknowledged)


def test_new_files_with_the_numbers_of_removed_ones_are_rescued(
    store: SqliteStore, database: Path
) -> None:
    """A file system such as ext4 gives a new file the number of one that was removed before."""
    with closing(SqliteStore(database)) as reopened:
        with closing(sqlite3.connect(database)) as keeper:  # so that the numbers stay the same
            keeper.execute("select 1 from processes").fetchone()
            store.close()
            note = files.rescue_note(files.current_files(*files.file_names(database)))
            Path(f"{database}-lock").write_text(note)
            reopened.activity.heartbeat("reopened", "web", 1 << 50)
        removes("-wal", "-shm")(database)
        reopened.activity.heartbeat("later", "web", 1 << 50)
        assert named(database) == everything("reopened", "later")


@changes
def test_a_batch_is_not_acknowledged_if_files_change_while_it_is_committed(
    store: SqliteStore, database: Path, change: Change
) -> None:
    with pytest.raises(StoreUnavailable, match=r"send it again"):
        store.database.writer.run(lambda _: change(database))
    assert named(database) == everything()
    store.activity.heartbeat("later", "web", 1 << 50)
    assert named(database) == everything("later")


@changes
def test_a_clean_stop_keeps_everything(store: SqliteStore, database: Path, change: Change) -> None:
    change(database)
    store.close()
    assert named(database) == everything()


@changes
def test_a_read_restores_the_files(store: SqliteStore, database: Path, change: Change) -> None:
    change(database)
    assert store.activity.last_seen("web") == 1 << 50
    assert named(database) == everything()


@changes
def test_a_wait_for_a_commit_restores_the_files(
    store: SqliteStore, database: Path, change: Change
) -> None:
    change(database)
    store.database.wait_for_commit(0, threading.Event())
    assert named(database) == everything()


@changes
def test_several_stores_restore_the_files_once(
    store: SqliteStore, database: Path, change: Change
) -> None:
    """Each closes its connections when it detects the change. None undoes the others' writes."""
    with closing(SqliteStore(database)) as other:
        other.activity.heartbeat("other", "web", 1 << 50)
        change(database)
        # The connections of both are in one process, so that the files are restored only after
        # both have closed theirs; in two processes, the first one can do it alone.
        for one in (store, other, store, other):
            try:
                one.activity.heartbeat(f"by-{one is store}", "web", 1 << 50)
            except StoreUnavailable:
                continue
        assert named(database) >= everything("other")


def test_an_emptied_log_is_noticed_before_the_next_batch(
    store: SqliteStore, database: Path
) -> None:
    """Data that was only in the log is lost; everything acknowledged afterwards is kept."""
    os.truncate(f"{database}-wal", 0)
    store.activity.heartbeat("later", "web", 1 << 50)
    assert "later" in named(database)


def test_a_log_that_we_emptied_is_no_change(store: SqliteStore, database: Path) -> None:
    store.database.shrink(0)
    assert Path(f"{database}-wal").stat().st_size == 0
    store.activity.heartbeat("later", "web", 1 << 50)
    assert named(database) == everything("later")
    assert not changes_on_record(store)


def changes_on_record(store: SqliteStore) -> int:
    return sum(
        counter.value for counter in store.metrics.counters() if counter.name == FILES_CHANGED
    )


def test_the_log_of_a_replaced_database_is_not_applied_to_its_successor(
    store: SqliteStore, database: Path, migrated: Callable[[Path], SqliteStore]
) -> None:
    backup = database.with_name("backup.db")
    with closing(migrated(backup)) as other:
        other.activity.heartbeat("in the backup", "web", 1 << 50)
    backup.replace(database)
    store.activity.heartbeat("later", "web", 1 << 50)
    assert named(database) == {"in the backup", "later"}


def test_a_database_that_is_missing_is_refused_until_it_is_back(
    store: SqliteStore, database: Path
) -> None:
    elsewhere = database.with_name("elsewhere.db")
    database.rename(elsewhere)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.activity.heartbeat("missing", "web", 1 << 50)
        with pytest.raises(StoreUnavailable):
            store.activity.last_seen("web")
    elsewhere.rename(database)
    store.activity.heartbeat("back", "web", 1 << 50)
    assert named(database) == everything("back")


def test_a_folder_that_was_moved_is_refused_until_it_is_back(
    tmp_path: Path, migrated: Callable[[Path], SqliteStore]
) -> None:
    (tmp_path / "data").mkdir()
    with closing(migrated(tmp_path / "data" / "receiver.db")) as store:
        store.activity.heartbeat("before", "web", 1 << 50)
        (tmp_path / "data").rename(tmp_path / "moved")
        with pytest.raises(StoreUnavailable):
            store.activity.heartbeat("moved", "web", 1 << 50)
        (tmp_path / "moved").rename(tmp_path / "data")
        store.activity.heartbeat("back", "web", 1 << 50)
        assert named(tmp_path / "data" / "receiver.db") == {"before", "back"}


def test_a_process_that_starts_creates_no_log_while_others_have_one_without_a_name(
    store: SqliteStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removes("-wal", "-shm")(database)
    with closing(SqliteStore(database)) as new:
        monkeypatch.setattr(sqlite_database, "OPENED_WITHIN", 0)
        with pytest.raises(StoreUnavailable, match="was removed while another process"):
            new.activity.last_seen("web")
        assert not Path(f"{database}-wal").exists()
        store.activity.heartbeat("later", "web", 1 << 50)
        assert new.activity.last_seen("web") == 1 << 50
    assert named(database) == everything("later")


WRITER = """
import sys
from receiver.errors import StoreUnavailable
from receiver.stores import open_store

store = open_store(sys.argv[1])
for line in sys.stdin:
    try:
        store.activity.heartbeat(line.strip(), "web", 1 << 50)
        print("written", flush=True)
    except StoreUnavailable as error:
        print(f"refused: {error}", flush=True)
"""


def test_a_process_that_was_idle_creates_no_log_while_others_have_one_without_a_name(
    store: SqliteStore, database: Path
) -> None:
    """The files were restored by another process, and one of the new files was also removed."""
    command = [sys.executable, "-c", WRITER, f"sqlite:///{database}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None

        def written_by_other(name: str) -> str:
            print(name, file=other.stdin, flush=True)
            return next(line for line in other.stdout or () if not line.startswith("20"))

        assert written_by_other("other").strip() == "written"
        removes("-wal", "-shm")(database)
        store.activity.heartbeat("restored", "web", 1 << 50)
        removes("-wal")(database)
        assert "was removed while another process" in written_by_other("refused")
        assert not Path(f"{database}-wal").exists()
        store.activity.heartbeat("later", "web", 1 << 50)
        assert written_by_other("again").strip() == "written"
        assert named(database) == everything("other", "restored", "later", "again")
        other.stdin.close()


def test_files_that_are_removed_while_they_are_opened_are_not_used(database: Path) -> None:
    def connects_and_removes(path: Path, *, read_only: bool) -> SqliteSession:
        connection = writer.connect(path, read_only=read_only)
        connection.execute("select 1 from sqlite_master limit 1").fetchone()
        removes("-wal", "-shm")(path)
        return connection

    copied = database.with_name("copied.db")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("vacuum into ?", (str(copied),))
    with closing(sqlite3.connect(copied)) as connection:
        connection.execute("pragma journal_mode = wal")
    opened = files.OpenFiles(copied)
    with pytest.raises(files.FilesChanged):
        opened.open(connects_and_removes, read_only=False)
    opened.open(writer.connect, read_only=False).close()


@pytest.mark.parametrize(
    "maintain",
    [lambda store: store.database.finish_erasure(), lambda store: store.database.shrink(1)],
)
@changes
def test_maintenance_does_not_combine_files_that_do_not_belong_together(
    store: SqliteStore, database: Path, change: Change, maintain: Callable[[SqliteStore], object]
) -> None:
    store.inbox.create_task(Task("erased", "kling", Status.SUCCEEDED, 1, 1, reference="CUSTOMER"))
    store.erasures.erase("erased", 2)
    change(database)
    with pytest.raises(StoreUnavailable):
        maintain(store)
    store.activity.heartbeat("later", "web", 1 << 50)
    assert named(database) == everything("later")


def test_forgetting_does_not_let_others_remove_the_log(store: SqliteStore, database: Path) -> None:
    """A process that closes a file loses its locks on it, and seems to have no connection open."""
    store.inbox.create_task(Task("erased", "kling", Status.SUCCEEDED, 1, 1, reference="CUSTOMER"))
    store.erasures.erase("erased", 2)
    other = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('select 1 from tasks')"
    )
    subprocess.run([sys.executable, "-c", f"{other}; c.close()", database], check=True)
    assert Path(f"{database}-wal").exists()


def test_a_read_in_progress_delays_the_recovery_but_loses_nothing(
    store: SqliteStore, database: Path
) -> None:
    with pytest.raises(StoreUnavailable), store.database.reading():
        removes("-wal", "-shm")(database)
    store.activity.heartbeat("later", "web", 1 << 50)
    assert named(database) == everything("later")


def test_readers_and_writers_of_many_threads_continue(store: SqliteStore, database: Path) -> None:
    stop = threading.Event()
    acknowledged: list[str] = []

    def read() -> None:
        while not stop.is_set():
            with suppress(StoreUnavailable):
                store.activity.last_seen("web")

    def write(writer: str) -> None:
        for number in count():
            if stop.is_set():
                return
            with suppress(StoreUnavailable):
                store.activity.heartbeat(f"{writer}-{number}", "web", 1 << 50)
                acknowledged.append(f"{writer}-{number}")

    def wait_for_some() -> None:
        enough = len(acknowledged) + 10
        wait_until(lambda: len(acknowledged) >= enough)

    with ThreadPoolExecutor() as pool:
        done = [pool.submit(read), pool.submit(read), pool.submit(write, "a")]
        done.append(pool.submit(write, "b"))
        try:
            for change in CHANGES.values():
                wait_for_some()
                change(database)
            wait_for_some()
        finally:
            stop.set()
    assert [one.result() for one in done] == [None] * 4
    assert named(database) >= everything(*acknowledged)


def test_the_change_is_counted_and_reported_by_the_doctor(
    store: SqliteStore, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not list(record.changes(store))
    removes("-wal")(database)
    store.activity.heartbeat("later", "web", 1 << 50)
    assert changes_on_record(store) == 1
    (finding,) = record.changes(store)
    assert "1 time while" in finding.said
    assert "receiver.db-wal" in "".join(capsys.readouterr())
