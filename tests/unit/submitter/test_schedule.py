"""When a provider is asked, as a table; seconds throughout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.schedule import FINAL_AGE, LONGEST_WAIT, Schedule

CALLS_BACK = Schedule(usual=30, has_callbacks=True)
SILENT = Schedule(usual=20, has_callbacks=False)


@pytest.mark.parametrize(
    ("schedule", "first"),
    [
        (CALLS_BACK, 90),  # nothing learnt yet
        (Schedule(30, has_callbacks=True, learnt=True), 90),  # three times the usual
        (Schedule(2, has_callbacks=True, learnt=True), 30),
        (Schedule(4000, has_callbacks=True, learnt=True), 600),
        (SILENT, 14),  # shortly before it is usually done
        (Schedule(0.5, has_callbacks=False), 1),
        (Schedule(4000, has_callbacks=False), 300),
        (Schedule(30, has_callbacks=True, at_most=2), 2),  # RECONCILE_AFTER
        (Schedule(20, has_callbacks=False, at_most=60), 14),
        (Schedule(4000, has_callbacks=True, learnt=True, kept_for=600), 300),  # half of it
    ],
)
def test_the_first_question(schedule: Schedule, first: float) -> None:
    assert schedule.first == pytest.approx(first)


@pytest.mark.parametrize(
    ("schedule", "age", "wait"),
    [
        (CALLS_BACK, 90, 90),  # then it doubles
        (CALLS_BACK, 180, 180),
        (CALLS_BACK, 7_200, LONGEST_WAIT),
        (CALLS_BACK, FINAL_AGE - 100, 100),  # a last one at the final age
        (CALLS_BACK, FINAL_AGE, None),
        (Schedule(30, has_callbacks=True, at_most=2), 2, 2),
        (SILENT, 5, 2),
        (SILENT, 20, 4),  # a fifth of the age
        (SILENT, 3_600, 720),
        (SILENT, 40_000, LONGEST_WAIT),
        (Schedule(30, has_callbacks=True, kept_for=3_600), 7_200, 1_800),  # while it exists
    ],
)
def test_the_questions_after_it(schedule: Schedule, age: float, wait: float | None) -> None:
    found = schedule.again(age)
    assert found is None if wait is None else found == pytest.approx(wait)


@given(st.floats(0.1, 10_000), st.booleans(), st.booleans())
def test_every_schedule_ends_and_asks_a_bounded_number_of_times(
    usual: float, has_callbacks: bool, learnt: bool
) -> None:
    schedule = Schedule(usual, has_callbacks, learnt)
    age, questions = schedule.first, 1
    while (wait := schedule.again(age)) is not None:
        assert 1.0 <= wait <= LONGEST_WAIT
        age += wait
        questions += 1
    assert age >= FINAL_AGE
    assert questions <= 130
