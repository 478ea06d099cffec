"""A task only moves forward, and its final status changes at most once, by a query's response."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.tasks import (
    Outcome,
    Status,
    Trust,
    judge,
    may_correct,
    may_move,
    new_task_id,
)

statuses = st.sampled_from(Status)
trusts = st.sampled_from(Trust)


@pytest.mark.parametrize(
    ("current", "to", "allowed"),
    [
        (Status.CREATED, Status.SUBMITTED, True),
        (Status.CREATED, Status.SUCCEEDED, True),  # steps may be skipped
        (Status.SUBMITTED, Status.PROCESSING, True),
        (Status.PROCESSING, Status.FAILED, True),
        (Status.PROCESSING, Status.SUBMITTED, False),  # a late callback
        (Status.SUCCEEDED, Status.PROCESSING, False),  # a final status
        (Status.SUCCEEDED, Status.FAILED, False),
        (Status.FAILED, Status.SUCCEEDED, False),
        (Status.SUBMITTED, Status.SUBMITTED, False),
    ],
)
def test_a_task_only_moves_forward(current: Status, to: Status, allowed: bool) -> None:
    assert may_move(current, to) is allowed


@given(statuses, statuses)
def test_no_move_can_be_reversed(one: Status, other: Status) -> None:
    assert not (may_move(one, other) and may_move(other, one))


@given(statuses, trusts, statuses, trusts)
def test_a_final_status_changes_only_by_a_correction(
    current: Status, rests_on: Trust, reported: Status, trust: Trust
) -> None:
    outcome = judge(current, rests_on, reported, trust)
    if current.is_terminal and outcome is Outcome.RECORDED:
        assert trust is Trust.QUERIED
        assert rests_on is not Trust.QUERIED
        assert reported.is_terminal
        assert reported is not current


@given(statuses, trusts, trusts)
def test_the_same_status_again_is_a_duplicate(current: Status, one: Trust, other: Trust) -> None:
    assert judge(current, one, current, other) is Outcome.DUPLICATE


@pytest.mark.parametrize(
    ("current", "reported", "outcome"),
    [
        (Status.SUCCEEDED, Status.FAILED, Outcome.CONFLICT),
        (Status.FAILED, Status.SUCCEEDED, Outcome.CONFLICT),
        (Status.SUCCEEDED, Status.PROCESSING, Outcome.STALE),
        (Status.PROCESSING, Status.SUBMITTED, Outcome.STALE),
    ],
)
def test_a_contradiction_is_distinguished_from_a_late_callback(
    current: Status, reported: Status, outcome: Outcome
) -> None:
    assert judge(current, Trust.TOKEN, reported, Trust.TOKEN) is outcome


def test_a_queried_final_status_is_not_corrected() -> None:
    assert may_correct(Status.FAILED, Trust.TOKEN, Status.SUCCEEDED, Trust.QUERIED)
    assert not may_correct(Status.FAILED, Trust.QUERIED, Status.SUCCEEDED, Trust.QUERIED)
    assert not may_correct(Status.FAILED, Trust.TOKEN, Status.SUCCEEDED, Trust.SIGNED)


@given(st.integers(0, 2**48 - 1))
def test_a_task_id_is_a_uuid_7_of_its_time(now: int) -> None:
    task_id = new_task_id(now)
    assert len(task_id) == 32
    assert int(task_id[:12], 16) == now
    assert task_id[12] == "7"
    assert task_id[16] in "89ab"


def test_task_ids_sort_by_time() -> None:
    ids = [new_task_id(now) for now in range(1_700_000_000_000, 1_700_000_000_050)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
