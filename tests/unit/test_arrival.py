"""A request is given to a thread when it has arrived, wherever its bytes are cut apart."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.gthread import ThreadWorker

from receiver.web import arrival, worker
from receiver.web.arrival import LONGEST_BODY, LONGEST_CHUNKED, LONGEST_HEAD, Arrival, Reach

HEAD = b"POST /callbacks/kling/t/x HTTP/1.1\r\nHost: receiver\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = {
    "no body": HEAD + b"\r\n",
    "no header": b"GET / HTTP/1.0\r\n\r\n",
    "an empty line before": b"\r\n" + HEAD + b"\r\n",
    "a body": HEAD + b"Content-Length: 5\r\n\r\n12345",
    "a length in capitals": HEAD + b"CONTENT-LENGTH:5 \r\n\r\n12345",
    "a length in the body only": HEAD + b"Content-Length: 23\r\n\r\n\r\ncontent-length: 500\r\n",
    "chunks": CHUNKED + b"5\r\n12345\r\nA;name=value\r\n1234567890\r\n0\r\n\r\n",
    "an end within a chunk": CHUNKED + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"5\r\n12345\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
}


@pytest.mark.parametrize("request_", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("step", [1, 2, 7])
def test_whole_with_its_last_byte_and_not_before(request_: bytes, step: int) -> None:
    arrival = Arrival()
    pieces = [request_[start : start + step] for start in range(0, len(request_), step)]
    *reaches, last = [arrival.add(piece) for piece in pieces]
    assert set(reaches) == {Reach.PART}
    assert last is Reach.WHOLE
    assert bytes(arrival.data) == request_
    assert Arrival().add(request_) is Reach.WHOLE  # in one piece
    assert Arrival().add(request_ + HEAD) is Reach.WHOLE  # with the next one behind it


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n"])
def test_each_byte_of_a_head_is_looked_at_once(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    """Else a sender of single bytes could keep the main loop busy."""
    looked: list[int] = []

    class Spy:
        def search(self, data: bytes, start: int = 0) -> object:
            looked.append(len(data) - start)
            return bare.search(data, start)

    bare = arrival.BARE_LF
    monkeypatch.setattr(arrival, "BARE_LF", Spy())
    head = HEAD + b"X: " + b"x" * 5000 + b"\r\nY: y" + end
    made = Arrival()
    reaches = [made.add(bytes([byte])) for byte in head]
    assert set(reaches[:-1]) == {Reach.PART}
    assert reaches[-1] is Reach.WHOLE
    assert sum(looked) <= 2 * len(head)


@pytest.mark.parametrize(
    ("start", "reach"),
    [
        (HEAD + b"Content-Length: %d\r\n\r\n" % LONGEST_BODY, Reach.PART),
        (HEAD + b"Content-Length: %d\r\n\r\n" % (LONGEST_BODY + 1), Reach.LONG),
        (b"GET /" + b"x" * LONGEST_HEAD, Reach.ENDLESS_HEAD),
        (b"GET /" + b"x" * LONGEST_HEAD + b"\r\n\r\n", Reach.ENDLESS_HEAD),
        (CHUNKED + b"FFFFFFFF\r\n" + b"x" * LONGEST_CHUNKED, Reach.ENDLESS_CHUNKS),
        (CHUNKED + b"1\r\nx\r\n" * LONGEST_CHUNKED, Reach.ENDLESS_CHUNKS),
        (b"\x16\x03\x01\x02\x00\x01", Reach.NOT_HTTP),
        (b"GET / HTTP/1.0\n\n", Reach.WHOLE),  # never to end; the parser refuses it
        (CHUNKED + b"zz\r\n", Reach.WHOLE),
        (CHUNKED + b"1;" + b"x" * 9_000, Reach.WHOLE),
        (CHUNKED + b"0\r\n" + b"x" * 9_000, Reach.WHOLE),
    ],
)
def test_what_never_ends_is_not_waited_for(start: bytes, reach: Reach) -> None:
    assert Arrival().add(start) is reach
    arrival = Arrival()
    assert [arrival.add(start[at : at + 1000]) for at in range(0, len(start), 1000)][-1] is reach


def test_a_client_that_waits_to_be_welcome_is_known() -> None:
    arrival = Arrival()
    arrival.add(HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert arrival.wants_continue
    arrival = Arrival()
    arrival.add(HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n12345")
    assert not arrival.wants_continue  # it did not wait


def test_who_takes_no_answer_holds_a_thread_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(_: object, __: object, conn: Any) -> None:
        conn.sock.sendall(b"x" * 50_000_000)

    monkeypatch.setattr(worker, "ANSWER_IS_TAKEN_WITHIN", 0.1)
    monkeypatch.setattr(ThreadWorker, "handle_request", answer)
    ours, theirs = socket.socketpair()
    conn = worker.Connection(Config(), ours, ("192.0.2.1", 5000), None)
    conn.reach = Reach.WHOLE
    patient = worker.Worker.__new__(worker.Worker)
    with ours, theirs, pytest.raises(NoMoreData):
        patient.handle_request(SimpleNamespace(), conn)


class Listener:
    """Accepts the connections that it is given, and then says why it accepts no more."""

    def __init__(self, *connections: socket.socket, error: int = errno.EAGAIN) -> None:
        self.connections, self.error = list(connections), error

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.connections:
            raise OSError(self.error, "no connection")
        return self.connections.pop(0), ("192.0.2.1", 5000)

    def getsockname(self) -> tuple[str, int]:
        return ("192.0.2.9", 8000)


def listening(*connections: socket.socket, error: int = errno.EAGAIN) -> socket.socket:
    return cast("socket.socket", Listener(*connections, error=error))


@pytest.fixture
def patient() -> Iterator[tuple[worker.Worker, list[list[str]]]]:
    """A worker with one connection that waits, and what it notes."""
    notes: list[list[str]] = []
    trace = SimpleNamespace(note=lambda *note: notes.append(list(note)))
    made = worker.Worker.__new__(worker.Worker)
    made.cfg = Config()
    made.alive, made.nr_conns, made.sweep_at, made.waiting = True, 0, 0.0, {}
    made.pending_conns, made.worker_connections = deque(), 512
    made.wsgi = SimpleNamespace(extensions={"rejections": trace})
    made.log = logging.getLogger("test")
    ours, theirs = socket.socketpair()
    with selectors.DefaultSelector() as made.poller, theirs:
        made.accept(listening(ours))
        yield made, notes
        ours.close()


def test_who_is_too_slow_is_closed_and_leaves_a_trace(
    patient: tuple[worker.Worker, list[list[str]]],
) -> None:
    made, notes = patient
    (conn,) = made.waiting
    conn.reach = conn.arrival.add(HEAD)
    made.murder_pending()
    assert list(made.waiting) == [conn]  # there is time left
    conn.until = made.sweep_at = 0.0
    made.murder_pending()
    assert (made.waiting, made.nr_conns, conn.sock.fileno()) == ({}, 0, -1)
    assert notes == [["192.0.2.1", worker.TOO_SLOW, "POST", "/callbacks/kling/t/x"]]


def test_a_connection_that_was_kept_and_is_not_used_leaves_none(
    patient: tuple[worker.Worker, list[list[str]]],
) -> None:
    made, notes = patient
    (conn,) = made.waiting
    conn.until = 0.0
    made.murder_pending()
    assert (made.waiting, notes) == ({}, [])


def test_at_a_stop_who_still_sends_has_two_seconds(
    patient: tuple[worker.Worker, list[list[str]]],
) -> None:
    made, _ = patient
    (conn,) = made.waiting
    made.alive = False
    made.murder_pending()
    assert conn.until <= time.monotonic() + worker.LEAVES_WITHIN


def test_an_event_of_a_connection_that_was_just_closed_is_nothing(
    patient: tuple[worker.Worker, list[list[str]]],
) -> None:
    made, _ = patient
    (conn,) = made.waiting
    came = made.poller.get_key(conn.sock).data
    made.accept(listening(error=errno.EMFILE))
    assert made.nr_conns == 0
    came(conn.sock)
    assert made.nr_conns == 0
