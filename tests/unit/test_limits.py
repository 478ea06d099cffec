"""An address that only earns refusals waits; the others do not know of it."""

from __future__ import annotations

from itertools import takewhile

import pytest

from receiver.web.limits import Limits, network


def test_after_the_burst_one_a_second() -> None:
    limits = Limits(burst=3, per_second=1.0)
    assert [limits.wait("192.0.2.1", 0.0) for _ in range(3)] == [None] * 3
    assert limits.wait("192.0.2.1", 0.0) == 1.0
    assert limits.wait("192.0.2.1", 0.75) == 0.25
    assert limits.wait("192.0.2.1", 1.0) is None
    assert limits.wait("192.0.2.1", 1.0) == 1.0


def test_who_was_quiet_has_the_whole_burst_again_and_no_more() -> None:
    limits = Limits(burst=3, per_second=1.0)
    for now in (0.0, 1_000.0):
        assert [limits.wait("192.0.2.1", now) for _ in range(4)] == [None, None, None, 1.0]


def test_one_address_does_not_wait_for_another() -> None:
    limits = Limits(burst=1)
    assert limits.wait("192.0.2.1", 0.0) is None
    assert limits.wait("192.0.2.2", 0.0) is None
    assert limits.wait("192.0.2.1", 0.0) is not None


def test_only_so_many_addresses_are_remembered() -> None:
    limits = Limits(burst=1, most=100)
    for number in range(1_000):
        limits.wait(f"2001:db8:{number:x}::1", 0.0)
        limits.wait("192.0.2.1", 0.0)  # seen again and again: not the one that is forgotten
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
def test_who_counts_as_one_sender(addresses: list[str], count: int) -> None:
    networks = {network(address) for address in addresses}
    assert len(networks) == count
    assert max(map(len, networks)) <= 64
