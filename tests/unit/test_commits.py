"""Writes that an event loop awaits, with a real loop and a writer whose commits are scripted."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
import uvloop

from receiver.errors import StoreUnavailable
from receiver.stores import group_commit
from receiver.stores.group_commit import Write
from receiver.web.server import callback_app as commits
from receiver.web.server.callback_app import CommitNotifier
from tests.support.log_records import LogRecords
from tests.support.patience import PATIENCE, wait_until
from tests.support.scripted_writer import Rows, ScriptedWriter, adding

T = TypeVar("T")
Work = Callable[[Rows], object]
FOR_EVER = 10 * PATIENCE  # seconds; a failing test fails earlier than this


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time the test advances."""

    ahead = 0.0  # seconds
    called: list[str]  # from other threads

    def __init__(self) -> None:
        self.called = []
        super().__init__()

    def time(self) -> float:
        return super().time() + self.ahead

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, **more: Any
    ) -> asyncio.Handle:
        self.called.append(getattr(callback, "__name__", ""))
        return super().call_soon_threadsafe(callback, *args, **more)


Loop = Callable[[], asyncio.AbstractEventLoop]
on_each_loop = pytest.mark.parametrize(
    "loop", [Clock, uvloop.new_event_loop], ids=["asyncio", "uv"]
)


@pytest.fixture(autouse=True)
def _looks_and_patience_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the event that a write waits for wake it, and not the check for late writes."""
    monkeypatch.setattr(commits, "CHECK_INTERVAL", FOR_EVER)
    monkeypatch.setattr(group_commit, "PATIENCE", 3 * FOR_EVER)
    monkeypatch.setattr(group_commit, "PATIENCE_WHEN_STUCK", 3 * FOR_EVER)


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


class Front:
    """Accepts writes in an event loop, as the web process accepts callbacks."""

    def __init__(self, writer: ScriptedWriter) -> None:
        self.writer = writer
        self.loop = asyncio.get_running_loop()
        self.commits = CommitNotifier(writer, self.loop)
        self.mistakes: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.mistakes.append(context))

    async def take(self, work: Work) -> object:
        return await self.commits.wait_for(self.writer.submit(work, start=False))

    def accept(self, work: Work) -> asyncio.Task[object]:
        return self.loop.create_task(self.take(work))


def run(
    writer: ScriptedWriter, scenario: Callable[[Front], Coroutine[Any, Any, T]], loop: Loop = Clock
) -> T:
    async def in_front() -> T:
        front = Front(writer)
        returned = await scenario(front)
        assert front.mistakes == []
        return returned

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(in_front())


async def until(condition: Callable[[], object]) -> None:
    """Wait in another thread, so that the loop sleeps until something wakes it."""
    await asyncio.to_thread(wait_until, condition)


async def result(task: asyncio.Task[T]) -> T:
    await until(task.done)
    return task.result()


async def turn(clock: asyncio.AbstractEventLoop, ahead: float = 0.0) -> None:
    """Set the clock, and let the loop run whatever is due."""
    if isinstance(clock, Clock):
        clock.ahead = ahead or clock.ahead
    for _ in range(5):
        await asyncio.sleep(0)


@on_each_loop
def test_the_loop_continues_while_a_write_waits(
    writer: ScriptedWriter, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "STATEMENTS_TIMEOUT", FOR_EVER)

    async def scenario(front: Front) -> None:
        with writer.held("commit") as is_there:
            task = front.accept(adding(1))
            await until(is_there.is_set)
            assert not task.done()
        assert await result(task) == 1
        assert writer.rows == [1]

    run(writer, scenario, loop)


@on_each_loop
def test_writes_of_one_iteration_of_the_loop_are_one_commit(
    writer: ScriptedWriter, loop: Loop
) -> None:
    async def scenario(front: Front) -> None:
        assert await front.take(adding("first")) == "first"  # the thread has started, and waits
        for n in (0, 5):
            tasks = [front.accept(adding(n + more)) for more in range(5)]
            assert [await result(task) for task in tasks] == [*range(n, n + 5)]

    run(writer, scenario, loop)
    assert writer.commits == [["first"], [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


@on_each_loop
def test_an_idle_writer_starts_immediately(writer: ScriptedWriter, loop: Loop) -> None:
    async def scenario(front: Front) -> None:
        with writer.held() as is_there:
            first = front.accept(adding(1))
            await until(is_there.is_set)
            others = [front.accept(adding(n)) for n in (2, 3)]
            await until(lambda: writer.waiting == 2)
        assert [await result(task) for task in (first, *others)] == [1, 2, 3]

    run(writer, scenario, loop)
    assert writer.commits == [[1], [2, 3]]


def test_writes_caused_by_the_results_of_a_batch_join_the_next_one(writer: ScriptedWriter) -> None:
    """A client that receives a response sends its next callback a few iterations later."""

    async def client(front: Front) -> None:
        await front.take(adding("first"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await front.take(adding("next"))

    async def scenario(front: Front) -> None:
        with writer.held() as is_there:
            clients = [front.loop.create_task(client(front)) for _ in range(3)]
            await until(is_there.is_set)
            gathered = front.accept(adding("gathered"))
            await until(lambda: writer.waiting == 1)
            await turn(front.loop)
        assert isinstance(front.loop, Clock)
        called = front.loop.called
        # all clients receive their responses in one iteration
        wait_until(lambda: "_start_after" in called)
        for task in (*clients, gathered):
            await result(task)

    run(writer, scenario)
    assert writer.commits == [["first"] * 3, ["gathered", "next", "next", "next"]]


def test_a_batch_wakes_the_loop_once(writer: ScriptedWriter) -> None:
    writes: list[Write[Rows, object]] = []

    async def scenario(front: Front) -> None:
        with writer.held("commit") as is_there:
            writes.extend(writer.submit(adding(n), start=False) for n in range(9))
            tasks = [front.loop.create_task(front.commits.wait_for(write)) for write in writes]
            await until(is_there.is_set)
        wait_until(lambda: all(write.done() for write in writes))  # the loop is blocked
        assert [await result(task) for task in tasks] == [*range(9)]
        assert isinstance(front.loop, Clock)
        assert front.loop.called.count("_resume_callers") == 1
        assert await front.take(adding(9)) == 9  # and the next batch wakes it again

    run(writer, scenario)


def test_an_error_reaches_only_its_own_caller(writer: ScriptedWriter) -> None:
    mine = ValueError("mine alone")

    def bad(_: Rows) -> None:
        raise mine

    async def scenario(front: Front) -> None:
        tasks = [front.accept(work) for work in (adding(1), bad, adding(2))]
        assert await result(tasks[0]) == 1
        with pytest.raises(ValueError, match="mine alone") as raised:
            await result(tasks[1])
        assert raised.value is mine
        assert await result(tasks[2]) == 2

    run(writer, scenario)
    assert writer.commits == [[1, 2]]


def test_the_error_of_a_batch_reaches_every_caller_in_it(writer: ScriptedWriter) -> None:
    async def scenario(front: Front) -> None:
        writer.failure = StoreUnavailable("the disk is full", retry_after=7)
        for task in [front.accept(adding(n)) for n in range(3)]:
            with pytest.raises(StoreUnavailable, match="the disk is full") as raised:
                await result(task)
            assert raised.value.retry_after == 7
        assert await front.take(adding(3)) == 3

    run(writer, scenario)
    assert writer.rows == [3]


def test_a_write_that_waits_too_long_is_withdrawn(writer: ScriptedWriter) -> None:
    """The loop checks for late writes every FOR_EVER seconds, and a write may wait 3 * FOR_EVER."""

    async def scenario(front: Front) -> None:
        with writer.held() as is_there:
            in_batch = front.accept(adding(1))
            await until(is_there.is_set)
            behind = front.accept(adding(2))
            await turn(front.loop)
            await turn(front.loop, ahead=0.85 * FOR_EVER)
            newcomer = front.accept(adding(3))
            await turn(front.loop)
            await turn(front.loop, ahead=1.5 * FOR_EVER)
            await turn(front.loop, ahead=2.6 * FOR_EVER)
            assert not any(task.done() for task in (in_batch, behind, newcomer))
            await turn(front.loop, ahead=3.65 * FOR_EVER)
            for task in (in_batch, behind):
                with pytest.raises(StoreUnavailable, match=r"no commit within .* the script"):
                    task.result()
            assert writer.waiting == 1
            assert not newcomer.done()
        assert await result(newcomer) == 3
        await turn(front.loop, ahead=5 * FOR_EVER)  # a check that finds no late write
        with writer.held() as is_there:
            again = front.accept(adding(4))
            await until(is_there.is_set)
            await turn(front.loop, ahead=9 * FOR_EVER)
            assert isinstance(again.exception(), StoreUnavailable)

    run(writer, scenario)
    assert writer.rows == [3]


def test_a_write_that_has_begun_when_its_time_is_over_may_still_be_committed(
    writer: ScriptedWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[Write[Rows, Any]] = []
    give_up = writer.give_up

    def seen(write: Write[Rows, Any]) -> StoreUnavailable:
        given_up.append(write)
        return give_up(write)

    monkeypatch.setattr(writer, "give_up", seen)

    async def scenario(front: Front) -> None:
        with writer.held("commit") as is_there:
            late = front.accept(adding(1))
            await until(is_there.is_set)
            await turn(front.loop, ahead=4 * FOR_EVER)
            assert isinstance(late.exception(), StoreUnavailable)
            newcomer = front.accept(adding(2))
            await turn(front.loop)
            await turn(front.loop, ahead=6 * FOR_EVER)  # the check for late writes runs once
        assert await result(newcomer) == 2

    run(writer, scenario)
    assert writer.commits == [[1], [2]]
    (write,) = given_up
    assert write.result(PATIENCE) == 1


def test_a_write_that_is_durable_when_its_time_is_over_succeeds(
    writer: ScriptedWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop itself may have been blocked for that long."""
    monkeypatch.setattr(group_commit, "PATIENCE", FOR_EVER / 2)

    async def scenario(front: Front) -> None:
        write = writer.submit(adding(1), start=False)
        with ExitStack() as stack:
            is_there = stack.enter_context(writer.held("commit"))

            def stand_still() -> None:
                stack.close()
                wait_until(write.done)

            # in the same iteration as the check, before it
            front.loop.call_later(FOR_EVER, stand_still)
            task = front.loop.create_task(front.commits.wait_for(write))
            await until(is_there.is_set)
            await turn(front.loop, ahead=2 * FOR_EVER)
            assert await result(task) == 1

    run(writer, scenario)


class Body:
    """The memory that a callback occupies: up to 32 kB."""


@pytest.mark.parametrize(
    "why", ["recorded", "an error of its own", "a batch that fails", "in a batch", "behind a batch"]
)
@pytest.mark.usefixtures("_no_collection")
def test_memory_is_released_immediately_and_not_by_a_garbage_collection(
    writer: ScriptedWriter, why: str
) -> None:
    is_stuck = why.endswith(" a batch")
    references: list[weakref.ref[Body]] = []

    async def accept(front: Front) -> str:
        body = Body()
        references.append(weakref.ref(body))

        def work(rows: Rows) -> None:
            rows.append(type(body).__name__)
            if why == "an error of its own":
                raise ValueError("mine alone")

        try:
            await front.take(work)
        except (StoreUnavailable, ValueError) as error:
            return str(error)
        return "recorded"

    async def scenario(front: Front) -> str:
        with ExitStack() as stack:
            if why == "a batch that fails":
                writer.failure = StoreUnavailable("the disk is full")
            is_there = threading.Event()
            if is_stuck:
                is_there = stack.enter_context(writer.held())
            if why == "behind a batch":
                writer.submit(adding(1))
                await until(is_there.is_set)
            task = front.loop.create_task(accept(front))
            if is_stuck:
                await turn(front.loop)
                await until(is_there.is_set)
                await turn(front.loop, ahead=4 * FOR_EVER)
                assert task.done()
            messages = await result(task)
            await until(lambda: references[0]() is None)
        return messages

    messages = {
        "recorded": "recorded",
        "an error of its own": "mine alone",
        "a batch that fails": "the disk is full",
    }
    assert run(writer, scenario).startswith(messages.get(why, "no commit within"))


@pytest.mark.usefixtures("_no_collection")
def test_an_error_references_no_callback_of_another_caller(writer: ScriptedWriter) -> None:
    """Its traceback references the callback of the caller for which it was raised."""
    references: list[weakref.ref[Body]] = []
    errors: list[Exception] = []

    async def accept(front: Front, body: Body) -> None:
        references.append(weakref.ref(body))
        try:
            await front.take(adding(None))
        except StoreUnavailable as error:
            if len(references) == 2 and not errors:
                errors.append(error)

    async def scenario(front: Front) -> None:
        writer.failure = StoreUnavailable("the disk is full")
        tasks = [front.loop.create_task(accept(front, Body())) for _ in range(2)]
        for task in tasks:
            await result(task)
        assert len(errors) == 1
        await until(lambda: references[1]() is None)
        assert references[0]() is not None

    run(writer, scenario)


def test_a_cancelled_caller_does_not_affect_others(writer: ScriptedWriter) -> None:
    async def scenario(front: Front) -> None:
        with writer.held("commit") as is_there:
            cancelled, other = front.accept(adding(1)), front.accept(adding(2))
            await until(is_there.is_set)
            cancelled.cancel()
            await turn(front.loop)
            assert cancelled.cancelled()
        assert await result(other) == 2
        assert await front.take(adding(3)) == 3

    run(writer, scenario)
    assert writer.commits == [[1, 2], [3]]  # it was passed to the writer


@pytest.mark.usefixtures("_no_collection")
def test_the_write_of_a_cancelled_caller_is_withdrawn_in_time(
    writer: ScriptedWriter,
) -> None:
    body = Body()
    reference = weakref.ref(body)

    def adds(body: Body) -> Work:
        return lambda rows: rows.append(body)

    async def scenario(front: Front) -> None:
        nonlocal body
        with writer.held() as is_there:
            writer.submit(adding(1))
            await until(is_there.is_set)
            cancelled = front.accept(adds(body))
            del body
            await turn(front.loop)
            cancelled.cancel()
            await turn(front.loop)
            assert cancelled.cancelled()
            del cancelled
            assert writer.waiting == 1
            await turn(front.loop, ahead=4 * FOR_EVER)
            assert writer.waiting == 0
            assert reference() is None

    run(writer, scenario)
    assert writer.run(adding(2)) == 2
    assert writer.rows == [1, 2]


@on_each_loop
def test_closing_the_loop_during_a_commit_does_not_end_the_writer(
    writer: ScriptedWriter, loop: Loop, log_records: LogRecords
) -> None:
    thread = writer.run(lambda _: threading.current_thread())
    with writer.held() as is_there:

        async def scenario(front: Front) -> None:
            front.accept(adding(1))
            await until(is_there.is_set)
            front.accept(adding(2))  # it waits until the writer is idle
            await until(lambda: writer.waiting == 1)
            await turn(front.loop)

        run(writer, scenario, loop)
    assert writer.run(lambda _: threading.current_thread()) is thread
    assert log_records.messages(logging.INFO) == []
    assert writer.rows == [1, 2]


def test_a_finished_write_is_returned_without_waiting(
    writer: ScriptedWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens where no thread can be started: the loop then commits itself."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario(front: Front) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            write = writer.submit(adding(1), start=False)
        assert write.done()
        assert await result(front.loop.create_task(front.commits.wait_for(write))) == 1

    run(writer, scenario)
    assert writer.rows == [1]
