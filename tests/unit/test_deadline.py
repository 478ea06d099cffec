"""Work ends when its time is up."""

from __future__ import annotations

import socket
import threading

import pytest

from receiver.outgoing.deadline import Deadline
from tests.support.patience import PATIENCE, wait_until


def test_work_that_takes_too_long_is_abandoned() -> None:
    release = threading.Event()
    with Deadline(0.2) as clock:
        with pytest.raises(TimeoutError):
            clock.run(release.wait)  # it ends after the deadline, or never
        assert clock.passed
    release.set()


def test_results_and_errors_of_the_work_are_passed_on() -> None:
    with Deadline(5) as clock:
        assert clock.run(lambda: None) is None
        assert clock.run(lambda: 7) == 7
        with pytest.raises(ValueError, match="invalid literal"):
            clock.run(lambda: int("x"))


def test_a_connection_is_shut_down_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with Deadline(0.2) as clock:
            connection = clock.connect(*server.getsockname())
            connection.settimeout(PATIENCE)  # for each read, which would be far too long
            assert connection.recv(1) == b""
            assert clock.passed
        connection.close()


def test_no_timer_is_left_running() -> None:
    before = set(threading.enumerate())
    with Deadline(100 * PATIENCE):
        (timer,) = set(threading.enumerate()) - before
    timer.join(PATIENCE)
    assert not timer.is_alive()


def test_a_connection_made_too_late_is_not_returned() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        clock = Deadline(5)
        with clock:
            pass
        with pytest.raises(TimeoutError):
            clock.connect(*server.getsockname())


def test_after_the_block_a_connection_is_not_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with Deadline(1) as clock:
            connection = clock.connect(*server.getsockname())
        other, _ = server.accept()
        wait_until(lambda: clock.passed)
        connection.sendall(b"x")
        assert other.recv(1) == b"x"
        connection.close()
        other.close()
