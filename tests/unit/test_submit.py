"""Writes that are passed to the writer: when their futures are done, and with which results."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from functools import partial

import pytest

from receiver.errors import StoreUnavailable
from receiver.stores import group_commit
from tests.support.patience import PATIENCE, wait_until
from tests.support.scripted_writer import Rows, ScriptedWriter, adding


@pytest.fixture(autouse=True)
def _callers_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PATIENCE", 10 * PATIENCE)
    monkeypatch.setattr(group_commit, "PATIENCE_WHEN_STUCK", 10 * PATIENCE)


@pytest.fixture
def writer() -> Iterator[ScriptedWriter]:
    writer = ScriptedWriter()
    yield writer
    writer.close()


@pytest.fixture
def _no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Body:
    """The memory that a callback occupies."""


def raises(error: Exception) -> Callable[[Rows], object]:
    def work(rows: Rows) -> object:
        rows.append("undone")
        raise error

    return work


def full() -> StoreUnavailable:
    return StoreUnavailable("the disk is full", retry_after=7)


def test_a_write_is_done_only_once_it_is_durable(writer: ScriptedWriter) -> None:
    seen: list[Rows] = []
    with writer.held("commit") as is_there:
        write = writer.submit(adding(1))
        write.add_done_callback(lambda _: seen.append(writer.rows))
        assert is_there.wait(PATIENCE)  # and its work is done
        assert write.running()
        assert not write.done()
    assert write.result(PATIENCE) == 1
    wait_until(lambda: seen)
    assert seen == [[1]]


def test_the_error_of_a_write_affects_no_other(writer: ScriptedWriter) -> None:
    mine = ValueError("mine alone")
    with writer.held() as is_there:
        first = writer.submit(adding(0))
        assert is_there.wait(PATIENCE)
        writes = [writer.submit(work) for work in (adding(1), raises(mine), adding(2))]
    assert first.result(PATIENCE) == 0
    assert writes[1].exception(PATIENCE) is mine
    assert [writes[0].result(PATIENCE), writes[2].result(PATIENCE)] == [1, 2]
    assert writer.commits == [[0], [1, 2]]


def test_each_write_of_a_failed_batch_gets_its_own_error(writer: ScriptedWriter) -> None:
    """If threads raised the same error, each would find the others in its traceback."""
    writer.failure = full()
    with writer.held():
        writes = [writer.submit(adding(n), start=False) for n in range(3)]
        writer.start()
    errors = [write.exception(PATIENCE) for write in writes]
    assert [str(error) for error in errors] == ["the disk is full"] * 3
    assert {getattr(error, "retry_after", None) for error in errors} == {7}
    assert len(set(map(id, errors))) == 3
    assert writer.rows == []


@pytest.mark.parametrize("waits", ["in the batch", "for the next batch"])
@pytest.mark.parametrize("how", ["cancelled", "given up"])
@pytest.mark.usefixtures("_no_collection")
def test_a_write_cancelled_before_it_begins_is_never_made_and_released_immediately(
    writer: ScriptedWriter, how: str, waits: str
) -> None:
    body = Body()
    reference = weakref.ref(body)
    with writer.held() as is_there:
        if waits == "for the next batch":
            writer.submit(adding("another's"))
            assert is_there.wait(PATIENCE)
        write = writer.submit(adding(body))
        assert is_there.wait(PATIENCE)
        del body
        if how == "cancelled":
            assert write.cancel()
        else:
            writer.give_up(write)
            assert writer.waiting == 0
        assert reference() is None  # while the batch is blocked
        assert write.done()
        with pytest.raises(CancelledError):
            write.result()
    assert writer.run(adding("last")) == "last"
    assert [row for row in writer.rows if row != "another's"] == ["last"]


def test_a_write_cancelled_after_it_began_is_made_and_its_future_has_the_result(
    writer: ScriptedWriter,
) -> None:
    with writer.held("commit") as is_there:
        write = writer.submit(adding(1))
        assert is_there.wait(PATIENCE)
        assert not write.cancel()
        assert "no commit within" in str(writer.give_up(write))
        assert not write.done()
    assert write.result(PATIENCE) == 1
    assert writer.rows == [1]


def test_callbacks_of_a_cancelled_write_run_without_the_lock_of_the_writer(
    writer: ScriptedWriter,
) -> None:
    with writer.held() as is_there:
        write = writer.submit(adding(1))
        assert is_there.wait(PATIENCE)
        others: list[Future[object]] = []
        write.add_done_callback(lambda _: others.append(writer.submit(adding(2))))
        writer.give_up(write)
    assert others[0].result(PATIENCE) == 2
    assert writer.rows == [2]


def test_a_closing_writer_accepts_no_more_writes_and_commits_the_pending_ones(
    writer: ScriptedWriter,
) -> None:
    gathered = writer.submit(adding(1), start=False)
    writer.close()
    assert gathered.result(PATIENCE) == 1
    for start in (True, False):
        with pytest.raises(StoreUnavailable, match="closing"):
            writer.submit(adding(2), start=start)
    assert (writer.rows, writer.waiting, writer.is_open) == ([1], 0, False)


@pytest.mark.parametrize("way", ["start", "start_and_wait"])
def test_gathered_writes_wait_for_the_start(writer: ScriptedWriter, way: str) -> None:
    assert writer.run(adding(0)) == 0  # its thread has started, and waits
    writes = [writer.submit(adding(n), start=False) for n in (1, 2)]
    assert writer.waiting == 2
    if way == "start":
        writer.start()
    else:
        writer.start_and_wait(lambda: None)
    assert [write.result(PATIENCE) for write in writes] == [1, 2]
    assert writer.commits == [[0], [1, 2]]


@pytest.mark.parametrize("start", [True, False])
def test_without_a_thread_the_write_is_done_when_submit_returns(
    writer: ScriptedWriter, monkeypatch: pytest.MonkeyPatch, start: bool
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        write = writer.submit(adding(1), start=start)
        assert write.done()
        assert write.result() == 1
        failed = writer.submit(raises(ValueError("mine alone")), start=start)
        assert isinstance(failed.exception(), ValueError)
    assert writer.run(adding(2)) == 2
    assert writer.commits == [[1], [2]]


class Stops(BaseException):
    """An error that ends the writer's thread."""


def test_an_error_that_ends_the_thread_is_reported_and_another_thread_continues(
    writer: ScriptedWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    writer.failure = Stops()
    others: list[Future[object]] = []
    with writer.held():
        write = writer.submit(adding(1))
        # It is called on the thread that is about to end.
        write.add_done_callback(lambda _: others.append(writer.submit(adding(2))))
    with pytest.raises(StoreUnavailable, match="stopped"):
        write.result(PATIENCE)
    wait_until(lambda: died)
    assert others[0].result(PATIENCE) == 2
    assert writer.rows == [2]


def test_gathered_writes_are_committed_although_the_thread_ended_meanwhile(
    writer: ScriptedWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    writer.failure = Stops()
    with writer.held() as is_there:
        writer.submit(adding(1))
        assert is_there.wait(PATIENCE)
        gathered = writer.submit(adding(2), start=False)
    wait_until(lambda: died)
    writer.start_and_wait(lambda: None)
    assert gathered.result(PATIENCE) == 2


@pytest.mark.usefixtures("_no_collection")
def test_a_durable_write_no_longer_references_its_work(writer: ScriptedWriter) -> None:
    body = Body()
    reference = weakref.ref(body)
    write = writer.submit(partial(lambda _, rows: rows.append(1), body))
    del body
    assert write.result(PATIENCE) is None
    wait_until(lambda: reference() is None)


@pytest.mark.usefixtures("_no_collection")
def test_an_idle_writer_references_nothing_of_the_last_batch(writer: ScriptedWriter) -> None:
    write = writer.submit(lambda _: Body())
    reference = weakref.ref(write)
    returned = weakref.ref(write.result(PATIENCE))
    del write
    wait_until(lambda: reference() is None)
    assert returned() is None


@pytest.mark.parametrize("why", ["an error of its own", "a batch that fails", "no commit in time"])
@pytest.mark.usefixtures("_no_collection")
def test_an_error_in_a_waiting_thread_leaves_nothing_to_the_garbage_collector(
    writer: ScriptedWriter, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    messages: list[str] = []

    def accept() -> weakref.ref[Body]:
        body = Body()

        def work(rows: Rows) -> None:
            rows.append(body)
            if why == "an error of its own":
                raise ValueError("mine alone")

        try:
            writer.run(work)
        except (ValueError, StoreUnavailable) as error:
            messages.append(str(error))
        return weakref.ref(body)

    with ExitStack() as stack:
        if why == "a batch that fails":
            writer.failure = full()
        elif why == "no commit in time":
            monkeypatch.setattr(group_commit, "PATIENCE", 0)
            stack.enter_context(writer.held())
        reference = accept()
        wait_until(lambda: reference() is None)
    assert len(messages) == 1
