"""Positions in the event log: no event is lost or repeated, in whatever order events appear."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.stores.sql.database import TransactionRange
from receiver.stores.sql.event_log import MAX_SHOWN_GAPS, PATTERN, Gap, Position

KEYS = st.lists(st.integers(1, 40), unique=True)


def after(keys: list[int]) -> Position:
    position = Position(0)
    for key in keys:
        if not position.covers(key):
            position = position.after(key)
    return position


@given(KEYS)
def test_a_position_covers_exactly_the_events_before_it(keys: list[int]) -> None:
    position = after(keys)
    assert {key for key in range(1, 60) if position.covers(key)} == set(keys)


@given(KEYS)
def test_the_text_of_a_position_is_read_as_the_same_position(keys: list[int]) -> None:
    position = after(keys)
    assert Position.parse(str(position)) == position
    assert re.fullmatch(PATTERN, str(position))


@given(KEYS, KEYS)
def test_a_position_includes_another_if_it_covers_all_of_its_events(
    some: list[int], others: list[int]
) -> None:
    assert after(some).includes(after(others)) is (set(others) <= set(some))


@given(st.integers(0, 400))
def test_a_position_with_very_many_gaps_repeats_events_but_loses_none(gaps: int) -> None:
    keys = list(range(2, 2 * gaps + 2, 2)) or [1]
    text = str(after(keys))
    assert re.fullmatch(PATTERN, text)
    read = Position.parse(text)
    assert all(key in keys for key in range(1, 2 * gaps + 2) if read.covers(key))
    assert len(read.gaps) <= MAX_SHOWN_GAPS


@given(st.from_regex(re.compile(PATTERN), fullmatch=True))
def test_every_string_that_matches_the_pattern_is_a_position(text: str) -> None:
    position = Position.parse(text)
    bounds = [bound for gap in position.gaps for bound in (gap.first, gap.last)]
    assert bounds == sorted(bounds)
    assert all(bound < position.last for bound in bounds)


@pytest.mark.parametrize(
    "text", ["", "1", "tasks-1", "events-", "events--1", "events-1.", "events-1\n", "events-\uff11"]
)
def test_every_other_string_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the id of an event"):
        Position.parse(text)


def test_a_gap_stays_until_all_transactions_have_ended_that_could_fill_it() -> None:
    position = after([1, 4]).settled(TransactionRange(oldest=10, next=20))
    assert position.gaps == (Gap(2, 3),)  # a transaction before 20 may fill it
    assert position.settled(TransactionRange(oldest=19, next=30)).gaps == (Gap(2, 3),)
    assert position.settled(TransactionRange(oldest=20, next=30)).gaps == ()


def test_a_gap_that_was_found_later_stays_longer() -> None:
    position = after([1, 4]).settled(TransactionRange(oldest=10, next=20)).after(6)
    position = position.settled(TransactionRange(oldest=25, next=30))
    assert position.gaps == (Gap(5, 5),)


def test_gaps_are_ignored_if_rows_appear_in_order() -> None:
    assert after([1, 4]).settled(None) == Position(4)
