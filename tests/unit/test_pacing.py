"""The limits and the retries of a hook, without a database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.config import pacing
from receiver.endpoints import PACES_APART, PERIODS, Limits, Pace, Rate
from receiver.outgoing.retry import DEFAULT_DELAYS, LONGEST_WAIT, RetryPolicy

NOW = 1_765_519_851_000
TEN = Limits(Rate(10, "s"))
TWO = Limits(concurrency=2)


def begin(pace: Pace, now: int, most: int) -> tuple[Pace, int]:
    """Begin as many deliveries as the limits allow, at most `most`; return how many."""
    begun = pace.allowed(now, most)
    return replace(pace, next_at=pace.next_after(begun, now)), begun


@given(
    count=st.integers(1, 200),
    unit=st.sampled_from(list(PERIODS)),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 300)), min_size=1, max_size=80),
)
@example(count=10, unit="s", steps=[(0.105, 5)] * 300)
@example(count=100, unit="m", steps=[(0.1, 5)] * 1_500)
def test_no_period_contains_more_deliveries_than_the_rate(
    count: int, unit: str, steps: list[tuple[float, int]]
) -> None:
    """Workers check at any times, given as fractions of the interval, with any number of slots."""
    pace, now, begun_at = Pace(Limits(Rate(count, unit)), None, 0), NOW, list[int]()
    for part, most in steps:
        now += round(part * PERIODS[unit] / count)
        pace, begun = begin(pace, now, most)
        begun_at += [now] * begun
    window = PERIODS[unit] * 1.025  # with a margin for requests that take different times
    for start in begun_at:
        assert sum(start <= at < start + window for at in begun_at) <= count


@pytest.mark.parametrize(("count", "unit"), [(10, "s"), (1_000, "s"), (60, "m"), (7, "h")])
def test_a_busy_hook_uses_its_rate_although_each_worker_checks_late(count: int, unit: str) -> None:
    period = PERIODS[unit]
    pace, now, total = Pace(Limits(Rate(count, unit)), None, 0), NOW, 0
    while now < NOW + 20 * period:
        pace, begun = begin(pace, now, 1_000)
        total += begun
        opens_at = pace.opens_at(now)
        assert opens_at is not None
        now = opens_at + period // 50
    assert total >= 20 * count / 1.05 - 1


def test_deliveries_of_a_rate_are_spread_evenly() -> None:
    pace, begun = begin(Pace(TEN, None, 0), NOW, 5)
    assert (begun, pace.opens_at(NOW)) == (1, NOW + 80)
    pace, begun = begin(pace, NOW + 80, 5)
    assert (begun, pace.opens_at(NOW + 80)) == (1, NOW + 185)
    assert begin(pace, NOW + 184, 5)[1] == 0


def test_after_a_pause_only_a_few_deliveries_begin_together() -> None:
    pace = Pace(Limits(Rate(100, "m")), NOW - 1_000_000.0, 0)
    assert pace.allowed(NOW, 1_000) == 3
    assert pace.allowed(NOW, 2) == 2


@pytest.mark.parametrize("running", [0, 1, 2, 3])
def test_a_concurrency_limit_counts_running_deliveries(running: int) -> None:
    pace = Pace(TWO, None, running)
    assert pace.allowed(NOW, 9) == max(0, 2 - running)
    assert pace.opens_at(NOW) == (0 if running < 2 else None)
    assert pace.next_after(1, NOW) is None


def test_the_limit_that_is_used_up_is_named() -> None:
    both = Limits(Rate(10, "s"), 2)
    assert str(both) == "10/s, 2 at a time"
    assert Pace(both, NOW + 50.0, 1).text == "rate limit 10/s"
    assert Pace(both, NOW + 50.0, 2).text == "concurrency limit 2"
    assert [bool(limits) for limits in (both, TEN, TWO, Limits())] == [True, True, True, False]


def test_a_time_that_no_claim_can_have_set_is_ignored() -> None:
    """The rate was raised in the meantime, or the clock was set back."""
    slow, _ = begin(Pace(Limits(Rate(1, "h")), None, 0), NOW, 1)
    assert slow.allowed(NOW + 1, 1) == 0
    assert replace(slow, limits=TEN).allowed(NOW + 1, 1) == 1
    assert slow.allowed(NOW - 3_900_000, 1) == 1


def test_clocks_that_differ_slightly_allow_no_additional_delivery() -> None:
    pace, _ = begin(Pace(TEN, None, 0), NOW, 1)
    assert pace.allowed(NOW - PACES_APART // 2, 1) == 0


def test_the_delays_of_a_hook_replace_the_default_ones() -> None:
    policy = RetryPolicy((5.0, 60.0), jitter=0)
    delays = [policy.delay(number, chance=0.5, retry_after=None) for number in (1, 2, 3)]
    assert delays == [5.0, 60.0, None]
    assert policy.delay(1, chance=0.5, retry_after=90) == 90
    assert RetryPolicy(()).delay(1, chance=0.5, retry_after=90) is None


@pytest.mark.parametrize(
    ("seconds", "delays"),
    [
        (3, (3,)),
        (35, (5, 30)),
        (3_600, (5, 30, 120, 600, 2_845)),
        (259_200, (*DEFAULT_DELAYS, *[28_800] * 7, 13_645)),
    ],
)
def test_retry_for_uses_the_default_delays_up_to_its_total(
    seconds: float, delays: tuple[float, ...]
) -> None:
    assert RetryPolicy.lasting(seconds).delays == delays
    assert sum(delays) == seconds


def test_a_delay_in_the_hooks_file_is_never_shortened() -> None:
    assert pacing.LONGEST_DELAY == LONGEST_WAIT
