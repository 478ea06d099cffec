"""The group-commit writer: no caller returns before the commit, and a bad write fails alone."""

from __future__ import annotations

import gc
import re
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from receiver import providers
from receiver.errors import NotTheProtocol, StoreUnavailable
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.stores import group_commit
from receiver.stores.group_commit import Write
from receiver.stores.sqlite import SqliteStore
from receiver.stores.sqlite import writer as sqlite_writer
from receiver.stores.sqlite.writer import SqliteWriter, connect, file_lock
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback, subscription

Work = Callable[[sqlite3.Connection], int]
FOR_EVER = 10 * PATIENCE  # seconds; a failing test fails earlier than this


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
def writer(path: Path) -> Iterator[SqliteWriter]:
    made = SqliteWriter(path)
    yield made
    made.close()


def insert(n: int) -> Work:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("insert into t values (?)", (n,))
        return n

    return work


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The number of batches: the writer takes the file lock once for each."""
    taken: list[Path] = []

    def counted(path: Path) -> AbstractContextManager[None]:
        taken.append(path)
        return file_lock(path)

    monkeypatch.setattr(sqlite_writer, "file_lock", counted)
    return taken


def waits_for_lock(path: Path) -> bool:
    """Return whether anything waits for the file lock; the kernel marks it with an arrow."""
    inode = Path(f"{path}-lock").stat().st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{inode} " in line for line in lines)


def rows(path: Path) -> list[int]:
    connection = connect(path, read_only=True)
    try:
        return [row[0] for row in connection.execute("select n from t order by n")]
    finally:
        connection.close()


def full(_: sqlite3.Connection) -> int:
    raise sqlite3.OperationalError("database or disk is full")


@contextmanager
def held(writer: SqliteWriter) -> Iterator[Future[int]]:
    """Within the block, the writer is busy with one batch; new writes wait for the next.

    Yields the write that keeps it busy, which has begun.
    """
    entered, go = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> int:
        entered.set()
        assert go.wait(PATIENCE)
        return 0

    write = writer.submit(hold)
    assert entered.wait(PATIENCE)
    try:
        yield write
    finally:
        go.set()


def held_batch(writer: SqliteWriter, works: list[Work]) -> list[object]:
    """Run the work so that it shares one batch; return each result or error, in order."""

    def run(work: Work) -> object:
        try:
            return writer.run(work)
        except (StoreUnavailable, sqlite3.Error, ValueError) as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        with held(writer):
            futures = [pool.submit(run, work) for work in works]
            wait_until(lambda: writer.waiting == len(works))
        return [future.result(PATIENCE) for future in futures]


def test_every_writing_connection_syncs_fully(writer: SqliteWriter) -> None:
    found = writer.run(lambda connection: connection.execute("pragma synchronous").fetchone()[0])
    assert found == 2  # FULL
    assert writer.run(lambda c: c.execute("pragma secure_delete").fetchone()[0]) == 1


def test_savepoints_need_no_space_in_tmp(writer: SqliteWriter) -> None:
    memory = 2
    assert writer.run(lambda c: c.execute("pragma temp_store").fetchone()[0]) == memory


def test_no_caller_returns_before_the_commit(writer: SqliteWriter, path: Path) -> None:
    """When `run` returns, the data is visible to every other connection."""
    with ThreadPoolExecutor(8) as pool:
        seen = pool.map(
            lambda n: n in rows(path) if writer.run(insert(n)) == n else False, range(200)
        )
    assert all(seen)


def test_a_future_is_done_only_once_its_write_is_in_the_file(
    writer: SqliteWriter, path: Path
) -> None:
    seen: list[bool] = []

    def look(n: int, _: object) -> None:
        seen.append(n in rows(path))

    for n in range(50):
        writer.submit(insert(n), start=False).add_done_callback(partial(look, n))
        if n % 5 == 0:
            writer.start()
    writer.close()
    assert seen == [True] * 50


@pytest.mark.parametrize("is_settled_by", ["its commit", "an error of another", "a full disk"])
def test_a_finished_write_does_not_keep_its_work_in_memory(
    writer: SqliteWriter, is_settled_by: str
) -> None:
    """The work contains a callback; the future, or another write's error, may live longer."""

    class Body:
        """Stands for the memory of a callback."""

    def fails(_: sqlite3.Connection) -> int:
        raise ValueError("mine alone")

    other = {"its commit": insert(2), "an error of another": fails, "a full disk": full}
    body = Body()
    held_in_memory = weakref.ref(body)
    gc.disable()
    try:
        with held(writer):
            write = writer.submit(partial(lambda _, connection: insert(1)(connection), body))
            another = writer.submit(other[is_settled_by])
            del body
        assert write.exception(PATIENCE) is None or is_settled_by == "a full disk"
        another.exception(PATIENCE)
        wait_until(lambda: held_in_memory() is None)
    finally:
        gc.enable()


def test_the_traceback_of_an_error_shows_its_work(writer: SqliteWriter) -> None:
    def work(_: sqlite3.Connection) -> int:
        raise ValueError("mine alone")

    for wait in (writer.run, lambda work: writer.submit(work).result(PATIENCE)):
        with pytest.raises(ValueError, match="mine alone") as raised:
            wait(work)
        assert raised.traceback[-1].name == "work"


def test_waiting_writes_share_one_commit(writer: SqliteWriter, commits: list[Path]) -> None:
    assert held_batch(writer, [insert(n) for n in range(20)]) == list(range(20))
    assert len(commits) == 2  # the first batch, and the one of all twenty


def test_one_failing_write_fails_alone(writer: SqliteWriter, path: Path) -> None:
    def breaks(connection: sqlite3.Connection) -> int:
        connection.execute("insert into t values (500)")
        raise ValueError("mine alone")

    found = held_batch(writer, [insert(1), insert(5000), breaks, insert(2)])
    assert found[0] == 1
    assert isinstance(found[1], sqlite3.IntegrityError)
    assert isinstance(found[2], ValueError)
    assert found[3] == 2
    assert rows(path) == [1, 2]


Gather = Callable[[Work], "Future[int]"]


@pytest.fixture
def gathered(writer: SqliteWriter) -> Gather:
    """Submits work as an event loop does, which itself decides when it starts."""
    return partial(writer.submit, start=False)


def never() -> None:
    raise AssertionError("the writer was not at work")


@pytest.mark.parametrize("starts_by", ["start", "start_and_wait"])
def test_gathered_writes_are_committed_when_the_event_loop_says_so(
    writer: SqliteWriter, gathered: Gather, path: Path, commits: list[Path], starts_by: str
) -> None:
    start = partial(writer.start_and_wait, never)
    start()  # nothing has been submitted
    futures = [gathered(insert(n)) for n in (1, 2)]
    assert rows(path) == []
    assert writer.waiting == 2
    if starts_by == "start":
        start = writer.start  # type: ignore[assignment]
    start()
    assert [future.result(PATIENCE) for future in futures] == [1, 2]
    assert rows(path) == [1, 2]
    assert len(commits) == 1  # neither was committed before the other was submitted


def test_the_event_loop_waits_for_the_statements_and_not_for_the_commit(
    writer: SqliteWriter, gathered: Gather, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands_still, may_commit = threading.Event(), threading.Event()
    used: list[sqlite3.Connection] = []
    seen: list[list[int]] = []

    class Gate:
        """A lock that reports when the event loop begins to wait for it."""

        def __init__(self) -> None:
            self._lock = threading.Lock()

        def acquire(self, timeout: float = -1) -> bool:
            if self._lock.locked():
                stands_still.set()
            return self._lock.acquire(timeout=timeout)

        def release(self) -> None:
            self._lock.release()

    def hold_commit(statement: str) -> None:
        if statement == "commit":
            seen.append(rows(path) if may_commit.wait(PATIENCE) else [-1])

    def work(connection: sqlite3.Connection) -> int:
        used.append(connection)
        connection.set_trace_callback(hold_commit)
        assert stands_still.wait(PATIENCE)
        return insert(1)(connection)

    monkeypatch.setattr(group_commit, "STATEMENTS_TIMEOUT", FOR_EVER)
    future = gathered(work)
    locks = SimpleNamespace(Lock=Gate, Thread=threading.Thread)
    monkeypatch.setattr(group_commit, "threading", locks)
    writer.start_and_wait(never)
    assert used[0].total_changes == 1
    assert not future.done()
    may_commit.set()
    assert future.result(PATIENCE) == 1
    assert seen == [[]]


def test_the_event_loop_continues_when_a_batch_fails(
    writer: SqliteWriter, gathered: Gather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "STATEMENTS_TIMEOUT", FOR_EVER)
    future = gathered(full)
    writer.start_and_wait(never)
    assert isinstance(future.exception(PATIENCE), StoreUnavailable)


def test_the_event_loop_does_not_wait_long(writer: SqliteWriter, gathered: Gather) -> None:
    go = threading.Event()
    future = gathered(lambda _: int(go.wait(PATIENCE)))
    writer.start_and_wait(never)
    assert not future.done()
    go.set()
    assert future.result(PATIENCE) == 1


def test_a_busy_writer_reports_when_it_is_free(writer: SqliteWriter, gathered: Gather) -> None:
    is_free = threading.Event()
    with held(writer) as first:
        second = gathered(insert(2))
        writer.start_and_wait(is_free.set)
        assert not is_free.is_set()
    assert is_free.wait(PATIENCE)
    assert first.result(PATIENCE) == 0
    assert not second.done()
    writer.start_and_wait(never)
    assert second.result(PATIENCE) == 2


def test_a_writing_thread_includes_the_gathered_writes(
    writer: SqliteWriter, gathered: Gather
) -> None:
    future = gathered(insert(1))
    assert writer.run(insert(2)) == 2
    assert future.result(PATIENCE) == 1


def test_a_failed_commit_fails_the_whole_batch_and_the_writer_recovers(
    writer: SqliteWriter, path: Path
) -> None:
    found = held_batch(writer, [insert(1), full, insert(2)])
    assert all(isinstance(one, StoreUnavailable) for one in found)
    assert rows(path) == []
    assert writer.run(insert(3)) == 3
    assert rows(path) == [3]


def test_a_batch_that_ends_unexpectedly_acknowledges_nothing(
    writer: SqliteWriter, path: Path
) -> None:
    """If anything stops the writer between the work and the commit, no result is returned."""

    class Broken(BaseException):
        pass

    def breaks(batch: list[Write[sqlite3.Connection, int]]) -> None:
        patched.undo()
        for write in batch:
            assert write.begin()
            write.returned = 1
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


def test_without_a_new_thread_the_caller_commits(
    writer: SqliteWriter, path: Path, monkeypatch: pytest.MonkeyPatch
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
atexit.register(SqliteStore(Path(sys.argv[1])).activity.heartbeat, "web", "web", 1)
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
    assert store.activity.last_seen("web") == 1


def test_a_read_only_connection_cannot_write(path: Path) -> None:
    connection = connect(path, read_only=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("insert into t values (1)")
    connection.close()


def test_a_writer_waits_for_the_lock_of_another_process(writer: SqliteWriter, path: Path) -> None:
    writer.run(insert(1))
    with ThreadPoolExecutor(1) as pool:
        with file_lock(path):
            future = pool.submit(writer.run, insert(2))
            wait_until(lambda: waits_for_lock(path))
            assert not future.done()
            assert rows(path) == [1]
        assert future.result(PATIENCE) == 2


def test_two_processes_write_at_once(writer: SqliteWriter, path: Path) -> None:
    """No caller gets a busy error, because the file lock queues the batches."""
    program = (
        "import sys; from pathlib import Path\n"
        "from receiver.stores.sqlite.writer import SqliteWriter\n"
        "w = SqliteWriter(Path(sys.argv[1]))\n"
        "for n in range(500, 700):\n"
        "    w.run(lambda c: c.execute('insert into t values (?)', (n,)).rowcount)\n"
        "w.close()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(path)])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: writer.run(insert(n)), range(200)))
    assert other.wait(PATIENCE) == 0
    assert rows(path) == [*range(200), *range(500, 700)]


def test_waiting_writes_are_committed_before_the_store_closes(path: Path) -> None:
    writer = SqliteWriter(path)
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
    writer.close()  # closing twice is allowed
    with pytest.raises(StoreUnavailable):
        writer.run(insert(3))


def test_an_abandoned_write_is_not_done(writer: SqliteWriter, path: Path) -> None:
    """The request got a 503, so the sender will retry."""

    def wait_in_vain(n: int, seconds: float) -> None:
        """Time out as soon as the writer waits for the file lock."""
        write = writer.submit(insert(n))
        wait_until(lambda: waits_for_lock(path))
        assert write.patience == seconds
        error = str(writer.give_up(write))
        assert re.search(rf"no commit within {seconds:g} s.*record.db-lock", error)
        assert write.cancelled()

    writer.run(insert(1))
    with file_lock(path):
        wait_in_vain(2, FOR_EVER)
        wait_in_vain(3, group_commit.PATIENCE_WHEN_STUCK)  # a second request does not wait as long
        assert writer.waiting == 0  # and nothing keeps it alive, however long this takes
    assert writer.run(insert(4)) == 4
    with file_lock(path):
        wait_in_vain(5, FOR_EVER)  # the writer works again
    assert writer.run(insert(6)) == 6
    assert rows(path) == [1, 4, 6]


def test_one_bad_callback_fails_alone_among_many(
    store: SqliteStore, tmp_path: Path, commits: list[Path]
) -> None:
    """Many threads submit, and some of their work fails in the middle: one commit."""

    class Breaks:
        """A subscription that fails after callback, task and transition are written."""

        hook = "mail"

        def includes(self, **_: object) -> bool:
            raise ZeroDivisionError("a mistake of ours")

    good, bad = Ingest(store, [subscription("mail")]), Ingest(store, [Breaks()])  # type: ignore[list-item]
    good.accept(callback(body(), "taken"))

    def record(ingest: Ingest, sent: Callback) -> Callable[[], object]:
        return partial(ingest.record, sent, providers.parse(sent))

    works: list[Callable[[], object]] = []
    for number in range(8):
        task = f"good-{number}"
        works += [
            record(good, callback(body(), task)),
            record(bad, callback(body(), f"bad-{number}")),
            record(good, replace(callback(body(), "taken"), provider="appypie")),
            partial(store.inbox.create_task, store.queries.task("taken")),
        ]

    def outcome(work: Callable[[], object]) -> object:
        try:
            return work()
        except (ZeroDivisionError, NotTheProtocol, ValueError) as error:
            return type(error)

    commits.clear()
    with ThreadPoolExecutor(len(works) + 1) as pool:
        with file_lock(tmp_path / "receiver.db"):
            first = pool.submit(store.activity.heartbeat, "web", "web", 1)
            wait_until(lambda: waits_for_lock(tmp_path / "receiver.db"))
            found = [pool.submit(outcome, work) for work in works]
            wait_until(lambda: store.database.writer.waiting == len(works))
        first.result(PATIENCE)
        outcomes = [future.result(PATIENCE) for future in found]
    assert len(commits) == 2  # the heartbeat, and all other writes together
    assert outcomes == ["recorded", ZeroDivisionError, NotTheProtocol, ValueError] * 8
    assert {task.id for task in store.lists.tasks()} == {"taken", *(f"good-{n}" for n in range(8))}
    assert len(store.lists.callbacks(limit=100)) == 9
    assert len(store.lists.deliveries(limit=100)) == 9


def test_no_caller_waits_for_ever(
    writer: SqliteWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.run(insert(1))
    monkeypatch.setattr(group_commit, "PATIENCE", 0.1)
    with file_lock(path):
        for n in (2, 3):  # one in a batch, and one that waits for the next
            with pytest.raises(StoreUnavailable, match="no commit"):
                writer.run(insert(n))
        assert writer.waiting == 0
    monkeypatch.setattr(group_commit, "PATIENCE", FOR_EVER)
    wait_until(lambda: not writer.is_busy)
    assert writer.run(insert(4)) == 4
    assert rows(path) == [1, 4]
