"""The demo's deadline restarts whenever there is progress; its error names the missing step."""

from __future__ import annotations

import pytest

from sandbox.demo import progress_deadline
from sandbox.demo.progress_deadline import ProgressDeadline, StepError

LIMIT = 60.0  # seconds


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_deadline, "POLLED_EVERY", 0)


def test_the_deadline_passes_when_nothing_new_was_seen_for_the_limit(clock: Clock) -> None:
    deadline = ProgressDeadline(LIMIT, clock)
    clock.now += LIMIT - 0.1
    assert not deadline.passed
    clock.now += 0.1
    assert deadline.passed


def test_each_new_fact_restarts_the_deadline(clock: Clock) -> None:
    deadline = ProgressDeadline(LIMIT, clock)
    for number in range(20):
        clock.now += LIMIT - 1
        deadline.note(["a known fact", number])
        assert not deadline.passed


def test_a_repeated_fact_does_not_restart_the_deadline(clock: Clock) -> None:
    deadline = ProgressDeadline(LIMIT, clock)
    deadline.note(["a fact"])
    clock.now += LIMIT
    deadline.note(["a fact"])
    deadline.note([])
    assert deadline.passed


def test_a_wait_that_makes_progress_has_no_total_limit(clock: Clock) -> None:
    deadline, looks = ProgressDeadline(LIMIT, clock), iter(range(20))

    def is_over() -> bool:
        clock.now += LIMIT - 1
        look = next(looks)
        deadline.note([look])
        return look == 19

    deadline.wait_until(is_over, lambda: "nothing")
    assert next(looks, None) is None


def test_a_wait_without_progress_ends_with_an_error_that_names_what_is_missing_and_the_remedy(
    clock: Clock,
) -> None:
    deadline, looks = ProgressDeadline(LIMIT, clock), 0

    def is_over() -> bool:
        nonlocal looks
        looks += 1
        clock.now += LIMIT / 3
        return False

    with pytest.raises(StepError, match="while waiting for a callback") as raised:
        deadline.wait_until(is_over, lambda: "a callback")
    assert "nothing new happened for 60 s" in str(raised.value)
    assert "--progress-within" in str(raised.value)
    assert looks == 3


def test_an_event_just_before_the_deadline_counts(clock: Clock) -> None:
    deadline = ProgressDeadline(LIMIT, clock)
    clock.now += 10 * LIMIT  # the machine was suspended
    deadline.wait_until(lambda: True, lambda: "nothing")
