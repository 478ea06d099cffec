"""Rejections are collected, counted and written regularly, and delay no request."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from receiver.errors import StoreUnavailable
from receiver.stores.sql.activity import Rejection
from receiver.web.rejections import MAX_ATTEMPTS, MAX_KINDS, MAX_REASON, OTHERS, Rejections
from tests.support.patience import PATIENCE, wait_until


class RejectionStore:
    """The store of the rejections; its first `fails` writes fail."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.writes: list[list[Rejection]] = []
        self.tries = 0
        self.was_written = threading.Event()

    def write(self, found: Sequence[Rejection]) -> None:
        self.tries += 1
        if self.tries <= self.fails:
            raise StoreUnavailable("not now")
        self.writes.append(list(found))
        self.was_written.set()


def test_equal_rejections_are_counted() -> None:
    store = RejectionStore()
    trace = Rejections(store.write, interval=600)
    for _ in range(5):
        trace.note("192.0.2.1", "wrong token", "POST", "/callbacks/kling/t/secret")
    trace.note("192.0.2.2", "wrong token", "POST", "/callbacks/kling/t/secret")
    trace.flush()
    ((first, second),) = store.writes
    assert (first.address, first.reason, first.method) == ("192.0.2.1", "wrong token", "POST")
    assert (first.path, first.count, second.count) == ("/callbacks/kling/t/…", 5, 1)
    trace.flush()
    assert len(store.writes) == 1  # without new rejections, nothing is written


def test_rejected_requests_cause_at_most_one_write_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[threading.Timer] = []

    def start(timer: threading.Timer) -> None:  # the test itself runs the timers
        started.append(timer)

    monkeypatch.setattr(threading.Timer, "start", start)
    store = RejectionStore()
    trace = Rejections(store.write)
    for second in range(1, 4):
        for sender in range(5):
            trace.note(f"192.0.2.{sender}", "wrong token", "POST", "/")
        assert len(started) == second
        assert started[-1].interval >= 1.0
        assert len(store.writes) == second - 1
        started[-1].function()
    assert len(store.writes) == 3


def test_an_attack_causes_one_write_of_limited_size() -> None:
    store = RejectionStore()
    trace = Rejections(store.write, interval=600)

    def attack(sender: int) -> None:
        for number in range(500):
            trace.note(f"192.0.2.{sender}", "unknown path", "GET", f"/p{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attack, range(8)))
    trace.flush()
    (found,) = store.writes
    assert len(found) == MAX_KINDS + 1
    assert sum(rejection.count for rejection in found) == 8 * 500
    assert found[-1].reason == OTHERS


def test_rejections_are_written_without_another_request() -> None:
    store = RejectionStore()
    trace = Rejections(store.write, interval=0.01)
    for _ in range(2):  # again, after a pause
        store.was_written.clear()
        trace.note("192.0.2.1", "wrong token", "POST", "/")
        assert store.was_written.wait(PATIENCE)


def test_a_store_that_is_unavailable_for_a_moment_is_retried() -> None:
    store = RejectionStore(fails=MAX_ATTEMPTS - 1)
    trace = Rejections(store.write, interval=0.01)
    trace.note("192.0.2.1", "wrong token", "POST", "/")
    assert store.was_written.wait(PATIENCE)
    assert store.tries == MAX_ATTEMPTS


def test_a_store_that_stays_unavailable_causes_a_limited_number_of_retries() -> None:
    store = RejectionStore(fails=MAX_ATTEMPTS)
    trace = Rejections(store.write, interval=0.01)
    trace.note("192.0.2.1", "lost", "POST", "/")
    wait_until(lambda: store.tries >= MAX_ATTEMPTS)
    trace.note("192.0.2.1", "kept", "POST", "/")
    assert store.was_written.wait(PATIENCE)
    assert [rejection.reason for rejection in store.writes[0]] == ["kept"]
    assert store.tries == MAX_ATTEMPTS + 1


def test_a_slow_store_delays_no_request() -> None:
    writes: list[Sequence[Rejection]] = []
    is_writing, hold = threading.Event(), threading.Event()

    def write(found: Sequence[Rejection]) -> None:
        writes.append(found)
        is_writing.set()
        hold.wait()

    trace = Rejections(write, interval=0.01)
    trace.note("192.0.2.1", "a", "POST", "/")
    assert is_writing.wait(PATIENCE)
    for number in range(1_000):
        trace.note("192.0.2.1", f"reason {number}", "POST", "/")
    hold.set()  # only now does the first write end
    wait_until(lambda: len(writes) == 2)
    assert len(writes[1]) == MAX_KINDS + 1
    assert sum(rejection.count for rejection in writes[1]) == 1_000


def test_the_stored_parts_of_a_request_are_printable_and_short() -> None:
    store = RejectionStore()
    trace = Rejections(store.write, interval=600)
    trace.note(
        "9" * 500, "\x1b[31mred\nline https://a.example/?sig=canary " + "x" * 5_000, "p\x00", ""
    )
    trace.flush()
    (rejection,) = store.writes[0]
    assert rejection.reason.startswith("[31mred line https://a.example/?… x")
    assert (len(rejection.reason), len(rejection.address)) == (MAX_REASON, 64)
    assert rejection.method == "…"


def test_unwritten_rejections_are_written_at_exit(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from receiver.web.rejections import Rejections;"
        "trace = Rejections(lambda found: pathlib.Path(sys.argv[1]).write_text(found[0].reason),"
        " interval=600); trace.note('192.0.2.1', 'wrong token', 'POST', '/')"
    )
    written = tmp_path / "kept"
    subprocess.run([sys.executable, "-c", program, str(written)], check=True, timeout=PATIENCE)
    assert written.read_text() == "wrong token"
