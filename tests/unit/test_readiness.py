"""Probes share one commit per second, however many there are and whatever its result."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from receiver.errors import StoreUnavailable
from receiver.observability.metrics import MetricBuffer
from receiver.web.health import CHECK_INTERVAL, NotReady, Readiness
from tests.support.patience import PATIENCE


class Commits:
    """Counts commits, and fails while `is_down`. The test advances the clock."""

    def __init__(self) -> None:
        self.count, self.now, self.is_down = 0, 1000.0, False
        self.meter = MetricBuffer()
        self.readiness = Readiness(self.commit, self.meter, lambda: self.now)

    def commit(self) -> None:
        self.count += 1
        if self.is_down:
            raise StoreUnavailable("the disk is full", 7)

    def is_ready(self) -> bool:
        try:
            self.readiness.check()
        except NotReady:
            return False
        return True


@pytest.fixture
def commits() -> Commits:
    return Commits()


@pytest.mark.parametrize("is_down", [False, True])
def test_probes_commit_once_a_second(commits: Commits, is_down: bool) -> None:
    commits.is_down = is_down
    assert CHECK_INTERVAL >= 1
    for second in range(1, 4):
        for _ in range(100):
            assert commits.is_ready() is not is_down
        assert commits.count == second
        commits.now += CHECK_INTERVAL


def test_a_result_expires_after_a_second(commits: Commits) -> None:
    assert commits.is_ready()
    commits.is_down = True
    commits.now += CHECK_INTERVAL
    assert not commits.is_ready()
    commits.is_down = False
    commits.now += CHECK_INTERVAL
    assert commits.is_ready()


def test_a_later_failed_write_ends_a_success(commits: Commits) -> None:
    assert commits.is_ready()
    commits.is_down = True
    commits.meter.store_failed()
    assert not commits.is_ready()
    commits.meter.store_failed()
    assert not commits.is_ready()
    assert commits.count == 2


def test_the_failure_names_the_check_and_the_time_of_a_retry(commits: Commits) -> None:
    commits.is_down = True
    for _ in range(2):
        with pytest.raises(NotReady, match="the disk is full") as found:
            commits.readiness.check()
        assert (found.value.members, found.value.retry_after) == ({"check": "record"}, 7)
    assert commits.count == 1


def test_an_unexpected_error_is_raised_but_not_repeated_for_every_probe(
    commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        commits.count += 1
        raise ZeroDivisionError

    monkeypatch.setattr(commits, "commit", broken)
    readiness = Readiness(commits.commit, commits.meter, lambda: commits.now)
    with pytest.raises(ZeroDivisionError):
        readiness.check()
    assert commits.count == 1


def test_simultaneous_probes_share_one_commit() -> None:
    """The commit ends only after all probes have arrived."""
    probes = 16
    arrived, is_committing = threading.Barrier(probes, timeout=PATIENCE), threading.Event()
    count = 0

    def commit() -> None:
        nonlocal count
        count += 1
        is_committing.wait(PATIENCE)

    readiness = Readiness(commit, MetricBuffer(), lambda: 1000.0)

    def probe(_: int) -> None:
        if arrived.wait() == 0:
            is_committing.set()
        readiness.check()

    with ThreadPoolExecutor(probes) as pool:
        list(pool.map(probe, range(probes)))
    assert count == 1
