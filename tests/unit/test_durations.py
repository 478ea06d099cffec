"""Durations and instants as people write them."""

from __future__ import annotations

import pytest

from receiver.config import durations

NOW = 1_765_519_851_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43_200), (" 30 d ", 2_592_000), ("8w", 4_838_400)],
)
def test_a_duration_is_parsed(text: str, seconds: int) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5h", "1y", "٣d", "999999999w"])
def test_the_error_for_an_invalid_duration_shows_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="30d"):
        durations.parse(text)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2d", NOW - 172_800_000),
        ("2025-12-12T06:10:51Z", NOW),
        ("2025-12-12T07:10:51+01:00", NOW),
        ("2025-12-12T06:10:51", NOW),  # without a zone: UTC
    ],
)
def test_an_instant_is_parsed(text: str, instant: int) -> None:
    assert durations.moment(text, NOW) == instant


@pytest.mark.parametrize("text", ["", "yesterday", "2025-13-01", "2026-11-20T25:00:00Z"])
def test_the_error_for_an_invalid_instant_shows_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="2026-11-20T08:00:00Z"):
        durations.moment(text, NOW)
