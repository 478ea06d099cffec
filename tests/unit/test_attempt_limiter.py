"""An address from which only rejected requests come is limited; other addresses are unaffected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.stores.sql.sessions import Allowance, Usage
from receiver.web import attempt_limiter as limits_module
from receiver.web.attempt_limiter import MAX_MERGED, AttemptLimiter, network
from tests.support.patience import PATIENCE


def test_after_the_burst_one_attempt_per_second_is_allowed() -> None:
    limits = AttemptLimiter(burst=3, per_second=1.0)
    assert [limits.wait("192.0.2.1", 0.0) for _ in range(3)] == [None] * 3
    assert limits.wait("192.0.2.1", 0.0) == 1.0
    assert limits.wait("192.0.2.1", 0.75) == 0.25
    assert limits.wait("192.0.2.1", 1.0) is None
    assert limits.wait("192.0.2.1", 1.0) == 1.0


def test_after_a_pause_the_whole_burst_is_allowed_again_and_no_more() -> None:
    limits = AttemptLimiter(burst=3, per_second=1.0)
    for now in (0.0, 1_000.0):
        assert [limits.wait("192.0.2.1", now) for _ in range(4)] == [None, None, None, 1.0]


def test_one_address_does_not_delay_another() -> None:
    limits = AttemptLimiter(burst=1)
    assert limits.wait("192.0.2.1", 0.0) is None
    assert limits.wait("192.0.2.2", 0.0) is None
    assert limits.wait("192.0.2.1", 0.0) is not None


def test_a_limited_number_of_addresses_is_remembered() -> None:
    limits = AttemptLimiter(burst=1, max_senders=100)
    for number in range(1_000):
        limits.wait(f"2001:db8:{number:x}::1", 0.0)
        # an address that is seen repeatedly is not the one that is dropped
        limits.wait("192.0.2.1", 0.0)
    assert limits.wait("192.0.2.1", 0.0) is not None
    latest_first = range(999, -1, -1)
    remembered = takewhile(
        lambda number: limits.wait(f"2001:db8:{number:x}::1", 0.0) is not None, latest_first
    )
    assert len(list(remembered)) == 99


@pytest.mark.parametrize(
    ("addresses", "count"),
    [
        (["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:0:1::"], 1),
        (["2001:db8::1", "2001:db8:0:1::1"], 2),
        (["192.0.2.1", "192.0.2.1:5000", "::ffff:192.0.2.1"], 1),
        (["192.0.2.1", "192.0.2.2"], 2),
        (["fe80::1%eth0", "fe80::2"], 1),
        (["", "unknown", "x" * 5_000], 3),
    ],
)
def test_which_addresses_count_as_one_sender(addresses: list[str], count: int) -> None:
    networks = {network(address) for address in addresses}
    assert len(networks) == count
    assert max(map(len, networks)) <= 64


# -- several processes


class Shared:
    """The store that several processes share; while `is_down`, it is unavailable."""

    def __init__(self) -> None:
        self.rows: dict[int, Usage] = {}
        self.processes: list[AttemptLimiter] = []
        self.is_down = False
        self.merges = self.reads = self.failures = 0

    def add_refused_attempts(
        self, allowance: Allowance, found: Sequence[Usage], now: int
    ) -> list[Usage]:
        self._reach()
        self.merges += 1
        for one in found:
            before = self.rows.get(one.slot)
            more = one if before is None else before.moved_to(now, allowance).plus(one, allowance)
            self.rows[one.slot] = more
        return self.refused_attempts(allowance, now)

    def refused_attempts(self, allowance: Allowance, now: int) -> list[Usage]:
        self._reach()
        self.reads += 1
        return [one.moved_to(now, allowance) for one in self.rows.values()]

    def _reach(self) -> None:
        if self.is_down:
            self.failures += 1
            raise StoreUnavailable("not now")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Timer]:
    """The timers that were started; the test runs them itself."""
    found: list[threading.Timer] = []

    def start(timer: threading.Timer) -> None:
        found.append(timer)

    monkeypatch.setattr(threading.Timer, "start", start)
    return found


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    monkeypatch.setattr(limits_module, "now_ms", lambda: 1_765_519_851_000)
    store = Shared()
    yield store
    for one in store.processes:
        one.close()


def process(shared: Shared, **more: Any) -> AttemptLimiter:
    limiter = AttemptLimiter(burst=6, per_second=1.0, store=shared, **more)
    shared.processes.append(limiter)
    return limiter


ATTACKER, OTHER = "192.0.2.1", "192.0.2.2"


@pytest.mark.usefixtures("started")
def test_the_attempts_of_all_processes_are_added_up(shared: Shared) -> None:
    first, second = process(shared), process(shared)
    assert [first.wait(ATTACKER, 0.0) for _ in range(6)] == [None] * 6
    first.merge(0.0)
    assert second.wait(ATTACKER, 0.0) == 1.0  # although it is its first request to this process
    assert second.wait(OTHER, 0.0) is None


@pytest.mark.usefixtures("started")
def test_processes_that_have_not_merged_yet_stay_within_the_rate(shared: Shared) -> None:
    """Each process allows its own attempts until it merges, and then none until one is due."""
    processes = [process(shared) for _ in range(3)]
    allowed = 0
    for second in range(60):
        for one in processes:
            allowed += sum(one.wait(ATTACKER, float(second)) is None for _ in range(5))
        for one in processes:
            one.merge(float(second))
        shared.rows = {
            slot: replace(row, used=max(0.0, row.used - 1.0)) for slot, row in shared.rows.items()
        }
    assert allowed <= 6 + 60 + 2 * 6


def test_an_attempt_writes_nothing_and_merges_are_a_second_apart(
    shared: Shared, started: list[threading.Timer]
) -> None:
    one = process(shared)
    for number in range(1_000):
        one.wait(f"198.51.100.{number % 250}", 0.0)
    assert (shared.merges, len(started)) == (0, 1)
    assert started[0].interval >= 1.0
    started[0].function()
    assert shared.merges == 1
    one.wait(ATTACKER, 0.0)
    assert (shared.merges, len(started)) == (1, 2)


@pytest.mark.usefixtures("started")
def test_the_store_is_read_at_most_once_a_second(shared: Shared) -> None:
    one = process(shared)
    for now in (0.0, 0.0, 0.9, 1.0, 1.5):
        one.wait(ATTACKER, now)
    assert shared.reads == 2


def test_while_the_store_is_down_each_process_counts_alone_and_merges_later(
    shared: Shared, started: list[threading.Timer]
) -> None:
    first = process(shared)
    shared.is_down = True
    assert [first.wait(ATTACKER, 0.0) for _ in range(7)] == [None] * 6 + [1.0]
    first.merge(0.0)
    first.merge(0.0)
    assert first.wait(ATTACKER, 0.0) == 1.0
    shared.is_down = False
    started[-1].function()  # without another attempt
    assert shared.merges == 1


@pytest.mark.usefixtures("started")
def test_attempts_expire_while_they_wait_for_the_store(shared: Shared) -> None:
    one = process(shared)
    for _ in range(6):
        one.wait(ATTACKER, 0.0)
    shared.is_down = True
    one.merge(1.0)
    shared.is_down = False
    one.merge(4.0)
    assert [row.used for row in shared.rows.values()] == [2.0]


@pytest.mark.usefixtures("started")
def test_a_store_that_is_down_is_not_read_for_every_attempt(shared: Shared) -> None:
    one = process(shared)
    shared.is_down = True
    for number in range(100):
        one.wait(f"198.51.100.{number}", 1.0)
    assert shared.failures == 1


def test_a_store_that_hangs_delays_only_one_attempt(started: list[threading.Timer]) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    class Hanging(Shared):
        def _reach(self) -> None:
            is_asked.set()
            may_answer.wait(PATIENCE)

    one = process(Hanging())
    blocked = real_thread(lambda: one.wait(ATTACKER, 0.0))
    assert is_asked.wait(PATIENCE)
    assert one.wait(OTHER, 5.0) is None  # while the other attempt still waits
    assert blocked.is_alive()
    may_answer.set()
    blocked.join(PATIENCE)
    assert not blocked.is_alive()
    del started


def real_thread(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target)
    thread.start()
    return thread


@pytest.mark.usefixtures("started")
def test_a_merge_has_a_limited_size_and_no_sender_is_charged_for_another(shared: Shared) -> None:
    one, other = process(shared), process(shared)
    for number in range(5_000):
        one.wait(f"2001:db8:{number:x}::1", 0.0)
    one.merge(0.0)
    assert len(shared.rows) <= MAX_MERGED
    assert other.wait("2001:db8:ffff:1::1", 0.0) is None
    assert [other.wait(ATTACKER, 0.0) for _ in range(7)] == [None] * 6 + [1.0]


@pytest.mark.usefixtures("started")
def test_the_stored_count_does_not_lower_that_of_this_process(shared: Shared) -> None:
    one = process(shared)
    one.wait(ATTACKER, 0.0)
    one.merge(0.0)
    for number in range(MAX_MERGED):  # the other attempts of the attacker are then not merged
        one.wait(f"2001:db8:{number:x}::1", 0.0)
    for _ in range(5):
        one.wait(ATTACKER, 0.0)
    one.merge(1.0)
    assert one.wait(ATTACKER, 1.0) is None
    assert one.wait(ATTACKER, 1.0) is not None


def test_the_slot_of_a_network_cannot_be_predicted_without_the_key(
    shared: Shared, started: list[threading.Timer]
) -> None:
    for key in ("a key", "another key"):
        one = process(shared, key=key)
        one.wait(ATTACKER, 0.0)
        one.merge(0.0)
    assert len({row.sender for row in shared.rows.values()}) == 2
    assert not any("192.0.2" in row.sender for row in shared.rows.values())
    del started
