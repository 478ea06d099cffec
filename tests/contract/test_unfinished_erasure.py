"""A reader of an older snapshot keeps erased data in the files, which is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.doctor import record
from receiver.doctor.findings import Verdict
from receiver.errors import NotErased
from receiver.ingest import Ingest
from receiver.maintenance.erasures import FinishErasures
from receiver.maintenance.forget import forget
from receiver.maintenance.prune import prune
from receiver.stores.base import Store
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from receiver.web.dashboard.attention import attention
from tests.support.samples import body, callback

NOW = 1_765_519_851_000
LATER = NOW + 60_000
ANNA = "Anna of Example Street"
only_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # the test reads the file
Erase = Callable[[Store], object]
ERASE: dict[str, Erase] = {
    "forget": lambda store: forget(store, "a", readers_end_within=0),
    "prune": lambda store: list(prune(store, LATER, readers_end_within=0)),
}


@pytest.fixture(params=sorted(ERASE))
def erase(request: pytest.FixtureRequest) -> Erase:
    """Forget or prune the task, without waiting for readers."""
    return ERASE[request.param]


@contextmanager
def older_snapshot(store: Store) -> Iterator[None]:
    """Hold a transaction that began to read before anything was erased."""
    with store.database.reading() as session:
        kind = "" if isinstance(store, SqliteStore) else " isolation level repeatable read"
        session.execute(f"begin{kind}")
        assert session.execute("select reference from tasks").fetchall()
        try:
            yield
            (row,) = session.execute("select reference from tasks").fetchall()
            assert row["reference"] == ANNA  # it still sees the erased rows
        finally:
            session.execute("rollback")


def put_on_record(store: Store) -> None:
    store.inbox.create_task(Task("a", "kling", Status.CREATED, NOW, NOW, reference=ANNA))
    raw = body("failed", task_status_msg="a reason that names a person")
    Ingest(store).accept(callback(raw, "a"))


def holds(store: Store, tmp_path: Path, words: str) -> bool:
    """Return whether the words are in the database files; the files of a server cannot be read."""
    if not isinstance(store, SqliteStore):
        return False
    files = tmp_path.glob("receiver.db*")
    return any(words.encode() in file.read_bytes() for file in files)


def test_without_readers_the_erasure_is_finished(store: Store, erase: Erase) -> None:
    put_on_record(store)
    erase(store)
    assert store.erasures.unfinished() is None
    assert store.database.finish_erasure()


def test_an_older_snapshot_is_reported_and_a_worker_finishes_the_erasure(
    store: Store, erase: Erase, tmp_path: Path
) -> None:
    put_on_record(store)
    chore = FinishErasures(store)
    with older_snapshot(store), capture_logs() as lines:
        with pytest.raises(NotErased, match=r"still in the database's files.*A worker finishes"):
            erase(store)
        assert holds(store, tmp_path, "names a person") is isinstance(store, SqliteStore)
        assert not store.database.finish_erasure()
        chore.round()
        chore.round()  # reported once, not every few seconds
    assert [line["event"] for line in lines] == ["an erasure is not finished"]
    assert lines[0]["log_level"] == "warning"
    # on record: the reader has ended, but no worker has run
    assert store.erasures.unfinished() is not None
    with capture_logs() as lines:
        chore.round()
        chore.round()
    assert [line["event"] for line in lines] == ["an erasure is finished"]
    assert store.erasures.unfinished() is None
    assert not holds(store, tmp_path, "names a person")


@only_sqlite
def test_another_process_finishes_the_erasure_of_a_dead_one(
    store: Store, erase: Erase, tmp_path: Path
) -> None:
    """The commit of the erasure records that it is unfinished; nothing in memory is needed."""
    put_on_record(store)
    with older_snapshot(store), pytest.raises(NotErased):
        erase(store)
    store.close()
    other = SqliteStore(tmp_path / "receiver.db")
    try:
        FinishErasures(other).round()
        assert other.erasures.unfinished() is None
    finally:
        other.close()
    assert not holds(other, tmp_path, "names a person")


def test_doctor_and_the_dashboard_show_an_unfinished_erasure(store: Store, erase: Erase) -> None:
    put_on_record(store)
    assert "erasure" not in {finding.check for finding in record.check(store)}
    with older_snapshot(store):
        with pytest.raises(NotErased):
            erase(store)
        (finding,) = [one for one in record.check(store) if one.check == "erasure"]
        assert finding.verdict is Verdict.WARNING
        where = "receiver.db-wal" if isinstance(store, SqliteStore) else "session pid "
        assert where in finding.said
        shown = " ".join(one.text for one in attention(store, (), LATER))
        assert "is still in the database's files" in shown
        assert where in shown


def test_a_repeated_run_reports_it_again_and_succeeds_in_the_end(
    store: Store, erase: Erase
) -> None:
    put_on_record(store)
    with older_snapshot(store):
        for _ in range(2):
            with pytest.raises(NotErased):
                erase(store)
    erase(store)
    assert store.erasures.unfinished() is None


@pytest.mark.parametrize("younger", [False, True])
def test_a_reader_that_began_after_the_erasure_matters_only_to_sqlite(
    store: Store, erase: Erase, younger: bool
) -> None:
    """While there is any reader, SQLite cannot truncate the log, which contains the older pages."""
    put_on_record(store)
    reader: AbstractContextManager[None] = nullcontext()
    if younger:
        reader = _younger_snapshot(store)
    store.erasures.close_task("a", LATER)
    with reader:
        if younger and isinstance(store, SqliteStore):
            with pytest.raises(NotErased):
                erase(store)
        else:
            erase(store)
    erase(store)
    assert store.erasures.unfinished() is None


@contextmanager
def _younger_snapshot(store: Store) -> Iterator[None]:
    """Hold a snapshot by reading another table, which cannot show the erased rows."""
    if not isinstance(store, SqliteStore):
        yield
        return
    with store.database.reading() as session:
        session.execute("begin")
        session.execute("select 1 from counters").fetchall()
        yield
        session.execute("rollback")
