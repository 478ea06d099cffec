"""How long a call is repeated while the provider rejects it temporarily."""

from dataclasses import replace

import pytest

from submitter.client import BRISK, PATIENT, Patience
from submitter.errors import OutcomeUnknown, TryLater, WrongAccount


class Time:
    """A clock that advances when the caller sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def passed_in(self, patience: Patience, chance: float = 0.0) -> Patience:
        return replace(patience, chance=lambda: chance, clock=lambda: self.now, sleep=self.sleep)


def later(times: int, **asked: float) -> list[Exception]:
    return [TryLater("Kling 1303: busy", retry_after=asked.get("retry_after"))] * times


def run(patience: Patience, errors: list[Exception]) -> str:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return patience.persist(call)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_the_first_delay_is_at_least_a_second(chance: float) -> None:
    time = Time()
    assert run(time.passed_in(PATIENT, chance), later(1)) == "done"
    assert len(time.slept) == 1
    assert 1.0 <= time.slept[0] < 2.0


def test_delays_grow_and_end_within_the_total_time() -> None:
    time = Time()
    with pytest.raises(TryLater, match="tried 7 times"):
        run(time.passed_in(PATIENT), later(100))
    assert time.slept == sorted(time.slept)
    assert time.now <= PATIENT.total


def test_retry_after_lengthens_a_delay() -> None:
    time = Time()
    assert run(time.passed_in(PATIENT), later(1, retry_after=30)) == "done"
    assert time.slept == [30]


def test_a_retry_after_beyond_the_total_time_is_raised_immediately() -> None:
    time = Time()
    with pytest.raises(TryLater) as caught:
        run(time.passed_in(PATIENT), later(1, retry_after=61))
    assert (time.slept, caught.value.retry_after) == ([], 61)


@pytest.mark.parametrize("error", [OutcomeUnknown("lost"), WrongAccount("no")])
def test_other_errors_are_not_retried(error: Exception) -> None:
    time = Time()
    with pytest.raises(type(error)):
        run(time.passed_in(BRISK), [error])
    assert time.slept == []
