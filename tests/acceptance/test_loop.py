"""Callbacks that the event loop takes without a thread, also when a commit or the log fails."""

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
MANY = 60  # callbacks, whose lines do not fit into that
PER_RUN = re.compile(rb"(?m)^(Date|X-Request-Id): .*\r$")


@pytest.fixture
def web(installation: Installation) -> Installation:
    """With one process that has one thread, and no time limits."""
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


def answers(web: Installation, where: str, raws: list[bytes]) -> list[bytes]:
    """What comes back for these, one after the other on one connection."""
    found = []
    with connected(web) as connection, connection.makefile("rb") as file:
        for sent in raws:
            connection.sendall(request(where, sent, "X-Sent-By: a test"))
            head = b"".join(iter(file.readline, b"\r\n"))
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length
            found.append(PER_RUN.sub(b"", head) + file.read(int(length[1])))
    return found


def test_more_wait_for_one_commit_than_there_are_threads(web: Installation) -> None:
    connections = [connected(web) for _ in range(AT_ONCE)]
    with file_lock(database(web)):  # none can be committed yet
        for number, connection in enumerate(connections):
            connection.sendall(request(path(f"task-{number}"), raw(f"task-{number}")))
        with connected(web) as other:  # none of them gives up: a thread would not come free
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: receiver\r\n\r\n")
            assert b" 200 " in other.makefile("rb").readline()
    for connection in connections:
        with connection:
            assert b" 200 " in connection.makefile("rb").readline()
    assert len(list(web.store.lists.tasks(limit=100))) == AT_ONCE


def test_a_record_that_fails_is_503_and_told_once(web: Installation) -> None:
    lock = web.folder / "receiver.db-lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    (answer,) = answers(web, path("task-1"), [raw("task-1")])
    assert b" 503 " in answer
    lock.rmdir()
    (answer,) = answers(web, path("task-1"), [raw("task-1")])
    assert b" 200 " in answer
    told = [
        line
        for line in (web.folder / "web.log").read_text().splitlines()
        if "the record is unavailable" in line
    ]
    assert len([line for line in told if "task-1" in line]) == 1
    assert len(workers(web)) == 1


def test_who_waited_long_is_told_what_was_wrong(web: Installation) -> None:
    """Of the callback, as without the wait; or of the record."""
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


def test_a_log_that_nobody_reads_stops_no_callback(installation: Installation) -> None:
    """Nor a stop."""
    os.mkfifo(installation.folder / "web.log")
    pipe = os.open(installation.folder / "web.log", os.O_RDWR)  # as a collector that hangs
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
        start_web(installation)
        found = answers(installation, path("task-1"), [raw("task-1")] * MANY)
        assert [answer.split(b" ", 2)[1] for answer in found] == [b"200"] * MANY
        os.set_blocking(pipe, False)
        assert os.read(pipe, 1 << 20)
        answers(installation, path("task-1"), [raw("task-1")] * MANY)
        assert b"lines were dropped, because the log could not be written" in os.read(pipe, 1 << 20)
        answers(installation, path("task-1"), [raw("task-1")] * MANY)
        assert installation.stop("web") == 0
    finally:
        os.close(pipe)
