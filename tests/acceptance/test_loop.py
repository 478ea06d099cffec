"""Callbacks are handled in the event loop without a thread, also when a commit or the log fails."""

from __future__ import annotations

import fcntl
import os
import re
import socket

import pytest

from receiver.clock import now_ms
from receiver.stores.sqlite.writer import file_lock
from receiver.tasks import Status, Task, new_task_id
from tests.support.gunicorn_processes import database, path, raw, waits_for_lock, workers
from tests.support.installation import Installation
from tests.support.patience import PATIENCE

AT_ONCE = 40
PIPE = 4096  # bytes; some 20 lines of the log
MANY = 60  # callbacks, whose log lines exceed that size
PER_RUN = re.compile(rb"(?m)^(Date|X-Request-Id): .*\r$")


@pytest.fixture
def web(installation: Installation) -> Installation:
    """A web server with one process that has one thread, and no time limits."""
    start_web(installation, "--threads", "1")
    return installation


def start_web(installation: Installation, *more: str) -> None:
    options = ("--workers", "1", "--keep-alive", "1000000", *more)
    installation.start_web("tests.support.apps.unhurried:app", *options)
    installation.wait_until_ready()


def request(where: str, sent: bytes, *more: str) -> bytes:
    lines = [f"POST {where} HTTP/1.1", "Host: receiver", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, f"Content-Length: {len(sent)}", "", ""]).encode() + sent


def connected(web: Installation) -> socket.socket:
    return socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE)


def responses(web: Installation, where: str, raws: list[bytes]) -> list[bytes]:
    """Return the responses to these callbacks, which are sent in order on one connection."""
    found = []
    with connected(web) as connection, connection.makefile("rb") as file:
        for sent in raws:
            connection.sendall(request(where, sent, "X-Sent-By: a test"))
            head = b"".join(iter(file.readline, b"\r\n"))
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length
            found.append(PER_RUN.sub(b"", head) + file.read(int(length[1])))
    return found


def test_more_callbacks_than_threads_wait_for_one_commit(web: Installation) -> None:
    connections = [connected(web) for _ in range(AT_ONCE)]
    with file_lock(database(web)):  # no commit is possible yet
        for number, connection in enumerate(connections):
            connection.sendall(request(path(f"task-{number}"), raw(f"task-{number}")))
        # the callbacks keep waiting; with threads, none would be free for this request
        with connected(web) as other:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: receiver\r\n\r\n")
            assert b" 200 " in other.makefile("rb").readline()
    for connection in connections:
        with connection:
            assert b" 200 " in connection.makefile("rb").readline()
    assert len(list(web.store.lists.tasks(limit=100))) == AT_ONCE


def test_a_failing_record_causes_503_and_one_log_line(web: Installation) -> None:
    lock = web.folder / "receiver.db-lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    (answer,) = responses(web, path("task-1"), [raw("task-1")])
    assert b" 503 " in answer
    lock.rmdir()
    (answer,) = responses(web, path("task-1"), [raw("task-1")])
    assert b" 200 " in answer
    reports = [
        line
        for line in (web.folder / "web.log").read_text().splitlines()
        if "the record is unavailable" in line
    ]
    assert len([line for line in reports if "task-1" in line]) == 1
    assert len(workers(web)) == 1


def test_the_response_after_a_long_wait_names_the_cause(web: Installation) -> None:
    """The cause may be the callback, as without the wait, or the record."""
    of_another = new_task_id(now_ms())
    web.store.inbox.create_task(Task(of_another, "modellix", Status.CREATED, now_ms(), now_ms()))
    name = database(web)
    with connected(web) as connection, connection.makefile("rb") as file:
        with file_lock(name):
            connection.sendall(request(path(of_another), raw(of_another)))
            web.wait_until(lambda: waits_for_lock(name))
        assert b" 422 " in file.readline()
    with connected(web) as connection, connection.makefile("rb") as file:
        with file_lock(name):
            connection.sendall(request(path("task-2"), raw("task-2")))
            web.wait_until(lambda: waits_for_lock(name))
            name.rename(name.with_suffix(".away"))
        assert b" 503 " in file.readline()
    name.with_suffix(".away").rename(name)
    log = (web.folder / "web.log").read_text()
    assert "could not commit" in log
    assert "no commit within" not in log


def test_a_log_without_a_reader_blocks_no_callback(installation: Installation) -> None:
    """A stop is not blocked either."""
    os.mkfifo(installation.folder / "web.log")
    pipe = os.open(installation.folder / "web.log", os.O_RDWR)  # like a log collector that hangs
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
        start_web(installation)
        found = responses(installation, path("task-1"), [raw("task-1")] * MANY)
        assert [answer.split(b" ", 2)[1] for answer in found] == [b"200"] * MANY
        os.set_blocking(pipe, False)
        assert os.read(pipe, 1 << 20)
        responses(installation, path("task-1"), [raw("task-1")] * MANY)
        assert b"lines were dropped, because the log could not be written" in os.read(pipe, 1 << 20)
        responses(installation, path("task-1"), [raw("task-1")] * MANY)
        assert installation.stop("web") == 0
    finally:
        os.close(pipe)
