"""The group-commit writer: nobody is answered before the commit, and one bad item fails alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from receiver.stores.gates import NEW_GATE, ThreadGate, Writer

from receiver.errors import NotTheProtocol, StoreUnavailable
from receiver.ingest import Ingest
from receiver.stores import group_commit
from receiver.stores.sqlite import SqliteStore
from receiver.stores.sqlite import writer as sqlite_writer
from receiver.stores.sqlite.writer import GroupCommit, connect, file_lock
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback, subscription

Work = Callable[[sqlite3.Connection], int]
FOR_EVER = 10 * PATIENCE  # seconds: a test that waits as long has failed before


@pytest.fixture(autouse=True)
def _callers_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PATIENCE", FOR_EVER)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "record.db"
    connection = connect(made, read_only=False)
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table t (n integer primary key check (n < 1000))")
    connection.close()
    return made


@pytest.fixture
def writer(path: Path) -> Iterator[GroupCommit]:
    made = GroupCommit(path)
    yield made
    made.close()


def insert(n: int) -> Work:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("insert into t values (?)", (n,))
        return n

    return work


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows with each batch: the writer takes the file lock once for each."""
    taken: list[Path] = []

    def counted(path: Path) -> AbstractContextManager[None]:
        taken.append(path)
        return file_lock(path)

    monkeypatch.setattr(sqlite_writer, "file_lock", counted)
    return taken


def waits_for_lock(path: Path) -> bool:
    """Whether a thread or process waits for the file lock: the kernel marks it with an arrow."""
    inode = Path(f"{path}-lock").stat().st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{inode} " in line for line in lines)


def rows(path: Path) -> list[int]:
    connection = connect(path, read_only=True)
    try:
        return [row[0] for row in connection.execute("select n from t order by n")]
    finally:
        connection.close()


def held_batch(writer: GroupCommit, works: list[Work]) -> list[object]:
    """Run the works so that all of them share one batch; each result or error, in order."""
    entered, go = threading.Event(), threading.Event()

    def first(_: sqlite3.Connection) -> int:
        entered.set()
        assert go.wait(PATIENCE)
        return 0

    def run(work: Work) -> object:
        try:
            return writer.run(work)
        except (StoreUnavailable, sqlite3.Error, ValueError) as error:
            return error

    with ThreadPoolExecutor(len(works) + 1) as pool:
        pool.submit(run, first)
        assert entered.wait(PATIENCE)
        futures = [pool.submit(run, work) for work in works]
        wait_until(lambda: writer.waiting == len(works))
        go.set()
        return [future.result(PATIENCE) for future in futures]


def test_every_connection_that_writes_syncs_fully(writer: GroupCommit) -> None:
    found = writer.run(lambda connection: connection.execute("pragma synchronous").fetchone()[0])
    assert found == 2  # FULL
    assert writer.run(lambda c: c.execute("pragma secure_delete").fetchone()[0]) == 1


def test_pieces_that_are_undone_need_no_room_in_tmp(writer: GroupCommit) -> None:
    memory = 2
    assert writer.run(lambda c: c.execute("pragma temp_store").fetchone()[0]) == memory


def test_nobody_is_answered_before_the_commit(writer: GroupCommit, path: Path) -> None:
    """What run() returned is in the file for every other connection."""
    with ThreadPoolExecutor(8) as pool:
        seen = pool.map(
            lambda n: n in rows(path) if writer.run(insert(n)) == n else False, range(200)
        )
    assert all(seen)


def test_waiting_items_share_one_commit(writer: GroupCommit, commits: list[Path]) -> None:
    assert held_batch(writer, [insert(n) for n in range(20)]) == list(range(20))
    assert len(commits) == 2  # the batch that was held up, and the one of all twenty


def test_one_bad_item_fails_alone(writer: GroupCommit, path: Path) -> None:
    def breaks(connection: sqlite3.Connection) -> int:
        connection.execute("insert into t values (500)")
        raise ValueError("mine alone")

    found = held_batch(writer, [insert(1), insert(5000), breaks, insert(2)])
    assert found[0] == 1
    assert isinstance(found[1], sqlite3.IntegrityError)
    assert isinstance(found[2], ValueError)
    assert found[3] == 2
    assert rows(path) == [1, 2]


class Gathers(ThreadGate):
    """The gate of a front that says itself when the writer is to start."""

    def begin(self, writer: Writer) -> None:
        """Later."""


Gather = Callable[[Work], "Future[int]"]


@pytest.fixture
def gathered(writer: GroupCommit) -> Iterator[Gather]:
    """Hands work to the writer, as such a front does; it waits there when this returns."""

    def run(work: Work) -> int:
        token = NEW_GATE.set(Gathers)
        try:
            return writer.run(work)
        finally:
            NEW_GATE.reset(token)

    with ThreadPoolExecutor(4) as pool:

        def gather(work: Work) -> Future[int]:
            waiting = writer.waiting
            future = pool.submit(run, work)
            wait_until(lambda: writer.waiting > waiting)
            return future

        yield gather


def never() -> None:
    raise AssertionError("the writer was not at work")


def test_what_gathers_is_committed_when_the_front_says_so(
    writer: GroupCommit, gathered: Gather, path: Path, commits: list[Path]
) -> None:
    writer.start_undisturbed(never)  # nothing is there, and nothing happens
    futures = [gathered(insert(n)) for n in (1, 2)]
    assert rows(path) == []
    writer.start_undisturbed(never)
    assert [future.result(PATIENCE) for future in futures] == [1, 2]
    assert rows(path) == [1, 2]
    assert len(commits) == 1  # neither was committed before the other had come


def test_the_front_stands_still_for_the_statements_and_not_for_the_commit(
    writer: GroupCommit, gathered: Gather, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands_still, may_commit = threading.Event(), threading.Event()
    used: list[sqlite3.Connection] = []
    seen: list[list[int]] = []

    class Gate(ThreadGate):
        """Reports that the front begins to wait at it."""

        def wait(self, seconds: float) -> bool:
            stands_still.set()
            return super().wait(seconds)

    def hold_commit(statement: str) -> None:
        if statement == "commit":
            seen.append(rows(path) if may_commit.wait(PATIENCE) else [-1])

    def work(connection: sqlite3.Connection) -> int:
        used.append(connection)
        connection.set_trace_callback(hold_commit)
        assert stands_still.wait(PATIENCE)
        return insert(1)(connection)

    monkeypatch.setattr(group_commit, "UNDISTURBED", FOR_EVER)
    monkeypatch.setattr(group_commit, "ThreadGate", Gate)
    future = gathered(work)
    writer.start_undisturbed(never)
    assert used[0].total_changes == 1
    may_commit.set()
    assert future.result(PATIENCE) == 1
    assert seen == [[]]


def test_the_front_goes_on_when_a_batch_fails(
    writer: GroupCommit, gathered: Gather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "UNDISTURBED", FOR_EVER)

    def full(_: sqlite3.Connection) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    future = gathered(full)
    writer.start_undisturbed(never)
    assert isinstance(future.exception(PATIENCE), StoreUnavailable)


def test_the_front_does_not_stand_still_for_long(writer: GroupCommit, gathered: Gather) -> None:
    go = threading.Event()
    future = gathered(lambda _: int(go.wait(PATIENCE)))
    writer.start_undisturbed(never)
    assert not future.done()
    go.set()
    assert future.result(PATIENCE) == 1


def test_a_busy_writer_says_when_it_is_free(writer: GroupCommit, gathered: Gather) -> None:
    entered, go, is_free = threading.Event(), threading.Event(), threading.Event()

    def holds(_: sqlite3.Connection) -> int:
        entered.set()
        return int(go.wait(PATIENCE))

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(writer.run, holds)
        assert entered.wait(PATIENCE)
        second = gathered(insert(2))
        writer.start_undisturbed(is_free.set)
        assert not is_free.is_set()
        go.set()
        assert is_free.wait(PATIENCE)
        assert first.result(PATIENCE) == 1
    assert not second.done()
    writer.start_undisturbed(never)
    assert second.result(PATIENCE) == 2


def test_a_thread_takes_along_what_gathers(writer: GroupCommit, gathered: Gather) -> None:
    future = gathered(insert(1))
    assert writer.run(insert(2)) == 2
    assert future.result(PATIENCE) == 1


def test_a_failed_commit_fails_the_whole_batch_and_heals(writer: GroupCommit, path: Path) -> None:
    def full(_: sqlite3.Connection) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    found = held_batch(writer, [insert(1), full, insert(2)])
    assert all(isinstance(one, StoreUnavailable) for one in found)
    assert rows(path) == []
    assert writer.run(insert(3)) == 3
    assert rows(path) == [3]


def test_a_batch_that_ends_unforeseen_acknowledges_nobody(writer: GroupCommit, path: Path) -> None:
    """Whatever stops the writer between the items and the commit, no result gets out."""

    class Broken(BaseException):
        pass

    def breaks(batch: list[group_commit.Item[sqlite3.Connection, int]]) -> None:
        patched.undo()
        for item in batch:
            item.result = 1
        raise Broken

    patched = pytest.MonkeyPatch()
    patched.setattr(writer, "_commit", breaks)  # injects a fault: the writer's thread dies
    died: list[object] = []
    hook, threading.excepthook = threading.excepthook, died.append
    try:
        with pytest.raises(StoreUnavailable):
            writer.run(insert(1))
        wait_until(lambda: died)
    finally:
        threading.excepthook = hook
    assert writer.run(insert(2)) == 2  # another writer thread took over
    assert rows(path) == [2]


def test_where_no_thread_can_be_started_the_caller_commits(
    writer: GroupCommit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert writer.run(insert(1)) == 1
        with pytest.raises(sqlite3.IntegrityError):
            writer.run(insert(1))
    assert writer.run(insert(2)) == 2
    assert rows(path) == [1, 2]


AT_THE_END = """
import atexit, sys
from pathlib import Path
from receiver.stores.sqlite import SqliteStore
atexit.register(SqliteStore(Path(sys.argv[1])).heartbeat, "web", "web", 1)
"""


def test_a_process_that_exits_commits_its_first_write(tmp_path: Path, store: SqliteStore) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END, str(tmp_path / "receiver.db")],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert store.seen("web") == 1


def test_a_read_only_connection_cannot_write(path: Path) -> None:
    connection = connect(path, read_only=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("insert into t values (1)")
    connection.close()


def test_a_writer_waits_for_the_lock_of_another_process(writer: GroupCommit, path: Path) -> None:
    writer.run(insert(1))
    with ThreadPoolExecutor(1) as pool:
        with file_lock(path):
            future = pool.submit(writer.run, insert(2))
            wait_until(lambda: waits_for_lock(path))
            assert not future.done()
            assert rows(path) == [1]
        assert future.result(PATIENCE) == 2


def test_two_processes_write_at_once(writer: GroupCommit, path: Path) -> None:
    """No busy error reaches anybody: the file lock queues the batches."""
    program = (
        "import sys; from pathlib import Path\n"
        "from receiver.stores.sqlite.writer import GroupCommit\n"
        "w = GroupCommit(Path(sys.argv[1]))\n"
        "for n in range(500, 700):\n"
        "    w.run(lambda c: c.execute('insert into t values (?)', (n,)).rowcount)\n"
        "w.close()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(path)])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: writer.run(insert(n)), range(200)))
    assert other.wait(PATIENCE) == 0
    assert rows(path) == [*range(200), *range(500, 700)]


def test_what_waits_is_committed_before_it_closes(path: Path) -> None:
    writer = GroupCommit(path)
    entered, go = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        entered.set()
        assert go.wait(PATIENCE)
        return insert(1)(connection)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(writer.run, slow)
        assert entered.wait(PATIENCE)
        second = pool.submit(writer.run, insert(2))
        wait_until(lambda: writer.waiting == 1)
        closing = pool.submit(writer.close)
        wait_until(lambda: writer.is_closing)
        go.set()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 2)
        closing.result(PATIENCE)
    assert rows(path) == [1, 2]
    writer.close()  # again is no mistake
    with pytest.raises(StoreUnavailable):
        writer.run(insert(3))


def test_what_nobody_waits_for_any_more_is_not_done(writer: GroupCommit, path: Path) -> None:
    """It was answered 503: the sender will come again."""

    class Impatient(ThreadGate):
        """The time is up as soon as the writer waits for the file lock."""

        def wait(self, seconds: float) -> bool:
            assert seconds > 0
            wait_until(lambda: waits_for_lock(path))
            return False

    def run_impatiently(n: int, seconds: float) -> None:
        token = NEW_GATE.set(Impatient)
        try:
            said = rf"no commit within {seconds:g} s.*record.db-lock"
            with pytest.raises(StoreUnavailable, match=said):
                writer.run(insert(n))
        finally:
            NEW_GATE.reset(token)

    writer.run(insert(1))
    with file_lock(path):
        run_impatiently(2, FOR_EVER)
        run_impatiently(3, group_commit.PATIENCE_WHEN_STUCK)  # no second request waits as long
        assert writer.waiting == 0  # nor is anything of it kept, however long that lasts
    assert writer.run(insert(4)) == 4
    with file_lock(path):
        run_impatiently(5, FOR_EVER)  # the writer is not stuck any more
    assert writer.run(insert(6)) == 6
    assert rows(path) == [1, 4, 6]


def test_one_bad_callback_fails_alone_among_many(
    store: SqliteStore, tmp_path: Path, commits: list[Path]
) -> None:
    """Requests from many threads, some of which fail in the middle of their work: one commit."""

    class Breaks:
        """A subscription that fails once callback, task and transition are written."""

        hook = "mail"

        def hears(self, **_: object) -> bool:
            raise ZeroDivisionError("a mistake of ours")

    good, bad = Ingest(store, [subscription("mail")]), Ingest(store, [Breaks()])  # type: ignore[list-item]
    good.accept(callback(body(), "taken"))
    works: list[Callable[[], object]] = []
    for number in range(8):
        task = f"good-{number}"
        works += [
            partial(good.accept, callback(body(), task)),
            partial(bad.accept, callback(body(), f"bad-{number}")),
            partial(good.accept, replace(callback(body(), "taken"), provider="appypie")),
            partial(store.create_task, store.task("taken")),
        ]

    def outcome(work: Callable[[], object]) -> object:
        try:
            return work()
        except (ZeroDivisionError, NotTheProtocol, ValueError) as error:
            return type(error)

    commits.clear()
    with ThreadPoolExecutor(len(works) + 1) as pool:
        with file_lock(tmp_path / "receiver.db"):
            first = pool.submit(store.heartbeat, "web", "web", 1)
            wait_until(lambda: waits_for_lock(tmp_path / "receiver.db"))
            found = [pool.submit(outcome, work) for work in works]
            wait_until(lambda: store.writer.waiting == len(works))
        first.result(PATIENCE)
        outcomes = [future.result(PATIENCE) for future in found]
    assert len(commits) == 2  # the heartbeat, and all others together
    assert outcomes == ["recorded", ZeroDivisionError, NotTheProtocol, ValueError] * 8
    assert {task.id for task in store.tasks()} == {"taken", *(f"good-{n}" for n in range(8))}
    assert len(store.callbacks(limit=100)) == 9
    assert len(store.deliveries(limit=100)) == 9


def test_nobody_waits_for_ever(
    writer: GroupCommit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.run(insert(1))
    monkeypatch.setattr(group_commit, "PATIENCE", 0.1)
    with file_lock(path), pytest.raises(StoreUnavailable, match="no commit"):
        writer.run(insert(2))
