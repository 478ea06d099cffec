"""The main loop takes ordinary callbacks, and waits for none of their commits."""

from __future__ import annotations

import gc
import logging
import os
import selectors
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import PollableMethodQueue

from receiver.errors import StoreUnavailable
from receiver.signing import mint
from receiver.stores.gates import NEW_GATE, Gate
from receiver.tasks import Outcome
from receiver.web import loop, worker
from receiver.web.ordinary import Ordinary
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import SECRET

TOKEN = mint(SECRET, "kling", "task-1")
REQUEST = (
    f"POST /callbacks/kling/task-1/{TOKEN} HTTP/1.1\r\nHost: receiver\r\n"
    "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
).encode()
OK = b"HTTP/1.1 200 OK\r\n"


class Writer:
    """Counts how many wait, each time that it is started."""

    def __init__(self, gates: list[Gate]) -> None:
        self.gates = gates
        self.started: list[int] = []
        self.when_free: Callable[[], None] | None = None

    def start(self) -> None:
        raise AssertionError("nobody waits in a thread here")

    def start_undisturbed(self, when_free: Callable[[], None]) -> None:
        self.started.append(len(self.gates))
        self.when_free = when_free


class Taking:
    """Waits at a gate, as the store does; and takes it if the gate opened."""

    def __init__(self) -> None:
        self.gates: list[Gate] = []
        self.writer = Writer(self.gates)
        self.failure: StoreUnavailable | None = None  # even if the gate opens
        self.takes = True

    def take(self, request: Ordinary) -> tuple[Outcome, str] | None:
        assert request.body == b"{}"
        gate = NEW_GATE.get()()
        self.gates.append(gate)
        gate.begin(self.writer)
        if not gate.wait(PATIENCE):
            raise StoreUnavailable("no commit in time")
        if self.failure:
            raise StoreUnavailable(str(self.failure))
        return (Outcome.RECORDED, "an-id") if self.takes else None


class Loop(loop.Worker):
    """Goes round when it is told to, and remembers what went to the threads."""

    def __init__(self) -> None:
        log = logging.getLogger("test")
        super().__init__(0, os.getpid(), [], None, 30, Config(), log)
        self.tpool = self.get_thread_pool()
        self.poller = selectors.DefaultSelector()
        self.method_queue.init()
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        self.direct: Any = Taking()
        self.long_way: list[worker.Connection] = []

    def enqueue_req(self, conn: Any) -> None:
        self.long_way.append(conn)

    def go_round(self) -> None:
        self.wait_for_and_dispatch_events(0.2)
        self.murder_pending()


@pytest.fixture
def made() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.tpool.shutdown()
    made.poller.close()
    PollableMethodQueue.close(made.method_queue)  # the worker keeps it to its end
    made.tmp.close()


class Listener:
    """Accepts the one connection that it is given."""

    def __init__(self, connection: socket.socket) -> None:
        self.connections = [connection]

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.connections:
            raise BlockingIOError
        return self.connections.pop(), ("192.0.2.1", 5000)

    def getsockname(self) -> tuple[str, int]:
        return ("192.0.2.9", 8000)


@contextmanager
def connected(made: Loop) -> Iterator[socket.socket]:
    """A client's end of a connection that the loop waits for."""
    client, server = socket.socketpair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.settimeout(PATIENCE)
    with client, server:
        made.accept(cast("socket.socket", Listener(server)))
        yield client


@pytest.fixture
def ours(made: Loop) -> Iterator[socket.socket]:
    with connected(made) as client:
        yield client


def is_silent(client: socket.socket) -> bool:
    """Has nothing come?"""
    client.setblocking(False)
    try:
        client.recv(1)
    except BlockingIOError:
        return True
    finally:
        client.settimeout(PATIENCE)
    return False


def test_it_goes_on_while_a_callback_waits_and_answers_when_it_is_durable(
    made: Loop, ours: socket.socket
) -> None:
    ours.sendall(REQUEST)
    made.go_round()
    made.go_round()
    (gate,) = made.direct.gates
    assert is_silent(ours)
    thread = threading.Thread(target=gate.open)
    thread.start()
    thread.join()
    made.go_round()
    assert ours.recv(4096).startswith(OK)
    assert (made.nr, made.long_way) == (1, [])
    assert len(made.waiting) == 1  # for the next one


def test_many_wait_at_once_and_each_gets_its_own_answer(made: Loop, ours: socket.socket) -> None:
    ours.sendall(REQUEST * 3)
    for number in range(3):
        made.go_round()
        assert len(made.direct.gates) == number + 1  # in their order
        made.direct.gates[-1].open()
        made.go_round()
    assert ours.recv(4096).count(OK) == 3


def test_the_writer_starts_once_all_that_came_in_a_round_has_gathered(
    made: Loop, ours: socket.socket
) -> None:
    with connected(made) as another:
        for sock in (ours, another):
            sock.sendall(REQUEST)
        made.go_round()
    assert made.direct.writer.started == [2]


def test_a_writer_that_is_free_again_is_started_at_once(made: Loop, ours: socket.socket) -> None:
    ours.sendall(REQUEST)
    made.go_round()
    waker = threading.Thread(target=made.direct.writer.when_free)
    waker.start()
    made.wait_for_and_dispatch_events(100 * PATIENCE)  # it returns because it is woken
    waker.join()
    assert made.direct.writer.started == [1, 1]


def test_what_waited_too_long_goes_to_a_thread_that_says_so(
    made: Loop, ours: socket.socket
) -> None:
    ours.sendall(REQUEST)
    made.go_round()
    (gate,) = made.direct.gates
    (shut,) = made.shut
    shut.until = 0.0
    made.murder_pending()
    assert len(made.long_way) == 1
    assert made.shut == {}
    gate.open()  # too late
    made.go_round()
    assert made.nr == 0
    assert made.long_way[0].parser.unreader.read(4096) == REQUEST


@pytest.mark.parametrize("why", ["not ordinary", "stopping", "its last request", "no way"])
def test_what_the_loop_does_not_take_goes_to_the_threads(
    made: Loop, ours: socket.socket, why: str
) -> None:
    made.alive = why != "stopping"
    if why == "its last request":
        made.max_requests = 1
    if why == "no way":
        made.direct = None
    ours.sendall(REQUEST.replace(b"POST", b"PUT") if why == "not ordinary" else REQUEST)
    made.go_round()
    assert len(made.long_way) == 1


def test_who_left_meanwhile_is_let_go(made: Loop, ours: socket.socket) -> None:
    ours.sendall(REQUEST)
    made.go_round()
    ours.close()
    made.direct.gates[0].open()
    made.go_round()
    made.go_round()
    assert (made.nr_conns, made.waiting) == (0, {})


def test_who_wants_it_is_sent_away_after_the_answer(made: Loop, ours: socket.socket) -> None:
    ours.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    made.go_round()
    made.direct.gates[0].open()
    made.go_round()
    answer = b"".join(iter(lambda: ours.recv(4096), b""))
    assert b"\r\nConnection: close\r\n" in answer


def test_a_stop_while_it_waits_is_told_to_the_sender(made: Loop, ours: socket.socket) -> None:
    ours.sendall(REQUEST)
    made.go_round()
    made.alive = False
    made.direct.gates[0].open()
    made.go_round()
    assert b"\r\nConnection: close\r\n" in ours.recv(4096)


def test_who_does_not_read_waits_for_a_thread_and_not_the_loop_for_them(
    made: Loop, ours: socket.socket
) -> None:
    (conn,) = made.waiting
    filled = 0
    while True:
        try:
            filled += conn.sock.send(b"x" * 1024)
        except BlockingIOError:
            break
    ours.sendall(REQUEST)
    made.go_round()
    made.direct.gates[0].open()
    made.go_round()  # would not come back
    assert made.waiting == {}
    while filled:
        filled -= len(ours.recv(min(filled, 65_536)))
    assert ours.recv(4096).startswith(OK)

    def waits_again() -> bool:
        made.go_round()
        return len(made.waiting) == 1

    wait_until(waits_again)


def test_who_wakes_a_loop_that_is_over_writes_into_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gunicorn closes the pipe while threads work; its number may be the database's then."""
    pipes: list[tuple[int, int]] = []
    pipe = os.pipe

    def seen() -> tuple[int, int]:
        pipes.append(pipe())
        return pipes[-1]

    monkeypatch.setattr(os, "pipe", seen)
    made = loop.Worker(0, os.getpid(), [], None, 30, Config(), None)
    made.method_queue.init()
    ((reading, writing),) = pipes
    made.method_queue.close()
    file = tmp_path / "receiver.db"
    file.write_bytes(b"SQLite format 3")
    with file.open("r+b") as first:
        opened = [first.fileno()]
        while opened[-1] < writing:
            opened.append(os.dup(first.fileno()))
        made.method_queue.defer(lambda: None)
        for descriptor in (*opened[1:], reading, writing):
            os.close(descriptor)
    made.tmp.close()
    assert file.read_bytes() == b"SQLite format 3"


def test_what_breaks_while_one_is_taken_ends_no_loop(made: Loop, ours: socket.socket) -> None:
    class Broken:
        def take(self, _: Ordinary) -> tuple[Outcome, str] | None:
            raise RuntimeError("can't start new thread")

    made.direct = Broken()
    ours.sendall(REQUEST)
    made.go_round()
    assert len(made.long_way) == 1


def test_a_slow_sender_of_an_application_without_rejections_ends_no_loop(
    made: Loop, ours: socket.socket
) -> None:
    made.wsgi = lambda *_: []  # a wrapped application
    ours.sendall(REQUEST[:20])
    made.go_round()
    (conn,) = made.waiting
    conn.until = made.sweep_at = 0.0
    made.murder_pending()
    assert made.waiting == {}


@pytest.fixture
def door(made: Loop) -> Iterator[socket.socket]:
    """Where the loop accepts new clients."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.setblocking(False)
        made.poller.register(listener, selectors.EVENT_READ, made.accept)
        yield listener
        made.poller.unregister(listener)
        for conn in made.waiting:
            conn.until = 0.0
        made.sweep_at = 0.0
        made.murder_pending()


def test_many_new_clients_share_a_round_and_a_commit(made: Loop, door: socket.socket) -> None:
    """Senders that open a connection for each callback get batches, too."""
    with ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(socket.create_connection(door.getsockname()))
            client.sendall(REQUEST)
        made.go_round()
        made.go_round()
        assert made.direct.writer.started[-1] == 10
        for gate in made.direct.gates:
            gate.open()
        made.go_round()


def test_no_more_new_clients_are_accepted_than_there_is_room_for(
    made: Loop, door: socket.socket, ours: socket.socket
) -> None:
    made.worker_connections = 2
    ours.sendall(REQUEST)
    made.go_round()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(door.getsockname())) for _ in range(5)
        ]
        made.go_round()
        assert made.nr_conns == 2
        assert is_silent(clients[0])  # it was not closed for those behind it
        made.direct.gates[0].open()
        made.go_round()


def test_a_newcomer_is_not_closed_for_those_who_wait_for_a_commit(
    made: Loop, ours: socket.socket
) -> None:
    made.worker_connections = 2
    ours.sendall(REQUEST)
    made.go_round()
    newcomer, server = socket.socketpair()
    with newcomer, server:
        made.accept(cast("socket.socket", Listener(server)))
        assert made.nr_conns == 2
        made.direct.gates[0].open()
        made.go_round()  # now another waits, and longer than the first that was answered
        assert made.nr_conns == 1
        assert is_silent(newcomer) is False  # it was closed


@pytest.mark.parametrize("why", ["no commit came", "the commit failed", "a thread is to do it"])
def test_a_thread_answers_for_what_failed_and_waits_for_what_is_to_be_done(
    made: Loop, ours: socket.socket, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    found: list[str] = []

    def answer(*_: object) -> None:
        try:
            NEW_GATE.get()()
        except StoreUnavailable as error:
            found.append(str(error))
        else:
            found.append("waits")

    monkeypatch.setattr(worker.Worker, "handle_request", answer)
    made.direct.failure = (
        StoreUnavailable("the disk is full") if why == "the commit failed" else None
    )
    made.direct.takes = why != "a thread is to do it"
    ours.sendall(REQUEST)
    made.go_round()
    if why == "no commit came":
        (shut,) = made.shut
        shut.until = 0.0
    else:
        made.direct.gates[0].open()
    made.go_round()
    (conn,) = made.long_way
    made.handle_request(None, conn)
    made.handle_request(None, conn)  # its next request
    said = {
        "no commit came": "no commit in time",
        "the commit failed": "the disk is full",
        "a thread is to do it": "waits",
    }
    assert found == [said[why], "waits"]


@pytest.mark.parametrize("failure", [None, StoreUnavailable("the disk is full")])
def test_what_was_taken_is_let_go_at_once_and_not_by_a_collection(
    made: Loop, ours: socket.socket, failure: StoreUnavailable | None
) -> None:
    """A callback may have 32 kB."""
    made.direct.failure = failure
    gc.disable()
    try:
        ours.sendall(REQUEST)
        made.go_round()
        (shut,) = made.shut
        taking = weakref.ref(shut.taking)
        shut.open()
        made.direct.gates.clear()
        del shut
        made.go_round()
        assert made.long_way if failure else ours.recv(4096).startswith(OK)
        assert taking() is None
    finally:
        gc.enable()


def test_who_asks_behind_another_request_is_told_that_its_body_may_come(
    made: Loop, ours: socket.socket
) -> None:
    asking = REQUEST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n").removesuffix(b"{}")
    ours.sendall(REQUEST + asking)
    made.go_round()
    made.direct.gates[0].open()
    made.go_round()
    answer = ours.recv(4096)
    assert answer.startswith(OK)
    assert answer.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    ours.sendall(b"{}")
    made.go_round()
    assert is_silent(ours)  # it is told once
    assert len(made.long_way) == 1


def test_an_answer_that_broke_off_ends_its_connection_alone(
    made: Loop, ours: socket.socket
) -> None:
    """gunicorn closes the socket itself then."""
    ours.sendall(REQUEST.replace(b"POST", b"PUT"))
    made.go_round()
    (conn,) = made.long_way
    conn.sock.close()
    broken: Future[bool] = Future()
    broken.set_result(False)
    made.finish_request(conn, broken)
    assert (made.nr_conns, made.waiting) == (0, {})


def own_hook(worker: object, request: object) -> None:
    """A function of an operator."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accesslog", "-"),
        ("logconfig_dict", {"version": 1}),
        ("syslog", True),
        ("statsd_host", "localhost:1"),
        ("pre_request", own_hook),
    ],
)
def test_who_wants_to_see_every_request_does(name: str, value: Any) -> None:
    cfg = Config()
    assert not loop.watches(cfg)
    cfg.set(name, value)
    assert loop.watches(cfg)


def test_connections_that_are_not_to_be_kept_are_not(made: Loop, ours: socket.socket) -> None:
    made.cfg.set("keepalive", 0)
    ours.sendall(REQUEST)
    made.go_round()
    made.direct.gates[0].open()
    made.go_round()
    assert b"\r\nConnection: close\r\n" in ours.recv(4096)


def test_those_who_wait_count_among_the_most_requests(made: Loop, ours: socket.socket) -> None:
    made.max_requests = 2
    ours.sendall(REQUEST)
    made.go_round()
    other, server = socket.socketpair()
    with other, server:
        made.accept(cast("socket.socket", Listener(server)))
        other.sendall(REQUEST)
        made.go_round()
    assert len(made.direct.gates) == len(made.long_way) == 1
