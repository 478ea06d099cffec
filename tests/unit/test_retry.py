"""The retry decision, as a table."""

import pytest

from receiver.outgoing.retry import LONGEST_WAIT, RetryPolicy


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 5), (2, 30), (3, 120), (4, 600), (5, 3_600), (6, 10_800), (7, 28_800), (8, None)],
)
def test_delays_increase_and_the_eighth_failure_is_the_last(
    attempts: int, seconds: float | None
) -> None:
    assert RetryPolicy().delay(attempts, chance=0.5, retry_after=None) == seconds


@pytest.mark.parametrize(
    ("chance", "seconds"),
    [(0.0, 27), (0.5, 30), (1.0, 33)],  # 30 s ± 10 %
)
def test_jitter_spreads_the_retries(chance: float, seconds: float) -> None:
    assert RetryPolicy().delay(2, chance=chance, retry_after=None) == pytest.approx(seconds)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 30), (0.5, 45), (1.0, 60)])
def test_delays_after_a_killed_worker_are_spread_further(chance: float, seconds: float) -> None:
    delay = RetryPolicy().delay(2, chance=chance, retry_after=None, apart=True)
    assert delay == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("requested", "seconds"),
    [(1, 5), (60, 60), (10**9, LONGEST_WAIT)],  # never sooner, and never longer than a day
)
def test_retry_after_lengthens_the_delay(requested: float, seconds: float) -> None:
    assert RetryPolicy().delay(1, chance=0.5, retry_after=requested) == seconds


def test_retry_after_adds_no_attempt_after_the_last() -> None:
    assert RetryPolicy().delay(8, chance=0.5, retry_after=10) is None
