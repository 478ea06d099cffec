"""The schedule of queries, as a table; all times are in seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.queries import GIVE_UP_AGE, LONGEST_WAIT, QuerySchedule

CALLS_BACK = QuerySchedule(usual=30, has_callbacks=True)
SILENT = QuerySchedule(usual=20, has_callbacks=False)


@pytest.mark.parametrize(
    ("schedule", "first"),
    [
        (CALLS_BACK, 90),  # no durations known yet
        # three times the usual duration
        (QuerySchedule(30, has_callbacks=True, is_measured=True), 90),
        (QuerySchedule(2, has_callbacks=True, is_measured=True), 30),
        (QuerySchedule(4000, has_callbacks=True, is_measured=True), 600),
        (SILENT, 14),  # shortly before the usual end
        (QuerySchedule(0.5, has_callbacks=False), 1),
        (QuerySchedule(4000, has_callbacks=False), 300),
        (QuerySchedule(30, has_callbacks=True, first_within=2), 2),  # RECONCILE_AFTER
        (QuerySchedule(20, has_callbacks=False, first_within=60), 14),
        (QuerySchedule(4000, has_callbacks=True, is_measured=True, kept_for=600), 300),  # half
    ],
)
def test_the_first_query(schedule: QuerySchedule, first: float) -> None:
    assert schedule.first == pytest.approx(first)


@pytest.mark.parametrize(
    ("schedule", "age", "wait"),
    [
        (CALLS_BACK, 90, 90),  # then the delay doubles
        (CALLS_BACK, 180, 180),
        (CALLS_BACK, 7_200, LONGEST_WAIT),
        (CALLS_BACK, GIVE_UP_AGE - 100, 100),  # the last query, at the maximum age
        (CALLS_BACK, GIVE_UP_AGE, None),
        (QuerySchedule(30, has_callbacks=True, first_within=2), 2, 2),
        (SILENT, 5, 2),
        (SILENT, 20, 4),  # a fifth of the age
        (SILENT, 3_600, 720),
        (SILENT, 40_000, LONGEST_WAIT),
        # while the result exists
        (QuerySchedule(30, has_callbacks=True, kept_for=3_600), 7_200, 1_800),
    ],
)
def test_the_following_queries(schedule: QuerySchedule, age: float, wait: float | None) -> None:
    found = schedule.next_wait(age)
    assert found is None if wait is None else found == pytest.approx(wait)


@given(st.floats(0.1, 10_000), st.booleans(), st.booleans())
def test_every_schedule_ends_and_has_a_limited_number_of_queries(
    usual: float, has_callbacks: bool, learnt: bool
) -> None:
    schedule = QuerySchedule(usual, has_callbacks, learnt)
    age, questions = schedule.first, 1
    while (wait := schedule.next_wait(age)) is not None:
        assert 1.0 <= wait <= LONGEST_WAIT
        age += wait
        questions += 1
    assert age >= GIVE_UP_AGE
    assert questions <= 130
