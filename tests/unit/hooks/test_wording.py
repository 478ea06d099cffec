"""The facts of a message in the form that people read."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.hooks import wording
from receiver.text.display import one_line
from tests.support.hook_servers import notice


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 s"),
        (999, "0 s"),
        (23_400, "23 s"),
        (60_000, "1 min 0 s"),
        (125_000, "2 min 5 s"),
        (3_600_000, "1 h 0 min"),
        (11_045_000, "3 h 4 min"),
        (349_200_000, "4 d 1 h"),
        (-5_000, "0 s"),  # the provider's clock is behind ours
    ],
)
def test_a_duration_has_at_most_two_units(milliseconds: int, text: str) -> None:
    assert wording.duration(milliseconds) == text


@given(st.text(st.characters()))  # including lone surrogates
def test_a_line_is_a_single_line_that_can_be_encoded(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    line.encode("utf-8")


def test_a_failure_contains_the_reason() -> None:
    facts = dict(wording.facts(notice("failed", reason="risk control")))
    assert facts == {
        "Task": "0199f1a2",
        "Reference": "ORDER-7",
        "Provider": "kling",
        "Duration": "25 s",
        "Time": "2025-12-12 06:10:50 UTC",
        "Reason": "risk control",
    }


@pytest.mark.parametrize(
    ("zone", "instant", "text"),
    [
        ("UTC", 1_765_519_850_000, "2025-12-12 06:10:50 UTC"),
        ("Europe/Berlin", 1_765_519_850_000, "2025-12-12 07:10:50 CET"),
        ("Europe/Berlin", 1_781_244_650_000, "2026-06-12 08:10:50 CEST"),
        ("Asia/Kathmandu", 1_765_519_850_000, "2025-12-12 11:55:50 +0545"),
    ],
)
def test_a_time_is_in_the_configured_time_zone(zone: str, instant: int, text: str) -> None:
    assert wording.moment(instant, ZoneInfo(zone)) == text


def test_texts_contain_local_time_and_json_contains_utc() -> None:
    in_berlin = replace(notice(), zone=ZoneInfo("Europe/Berlin"))
    assert dict(wording.facts(in_berlin))["Time"] == "2025-12-12 07:10:50 CET"
    assert in_berlin.as_json() == notice().as_json()
    assert in_berlin.as_json()["occurred_at"] == "2025-12-12T06:10:50.000Z"


def test_unknown_facts_are_omitted() -> None:
    labels = [label for label, _ in wording.facts(notice(reference=" ", account="shop2"))]
    assert labels == ["Task", "Provider", "Account", "Duration", "Time"]


@pytest.mark.parametrize(
    ("status", "reference", "title"),
    [
        ("succeeded", "ORDER-7", "ORDER-7 succeeded"),
        ("failed", None, "0199f1a2 failed"),
        ("given_up", "\r\n", "0199f1a2 was given up on"),
        ("processing", "A\nB", "A B is being processed"),
    ],
)
def test_a_title_names_the_task_and_its_status(
    status: str, reference: str | None, title: str
) -> None:
    assert wording.title(notice(status, reference=reference)) == title
