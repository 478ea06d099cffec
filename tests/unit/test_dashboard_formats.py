"""The formats of times, sizes and charts on pages."""

from __future__ import annotations

import re

import pytest

from receiver.stores.sql.metrics import SLOWEST
from receiver.text.display import elapsed
from receiver.web.dashboard import charts, formats
from receiver.web.dashboard.charts import BarSeries, Quantiles
from receiver.web.dashboard.formats import Formats

NOW = 1_765_519_851_123  # 2025-12-12T06:10:51.123Z
MINUTE, HOUR = 60_000, 3_600_000
NAMES = [f"{hour:02}:00" for hour in range(24)]


def test_times_are_in_the_configured_zone() -> None:
    assert Formats.of("UTC").when(NOW) == "12 Dec 2025, 06:10:51"
    tokyo = Formats.of("Asia/Tokyo")
    assert tokyo.when(NOW) == "12 Dec 2025, 15:10:51"
    assert tokyo.precise(NOW) == "15:10:51.123"
    assert tokyo.hour(NOW // HOUR) == "15:00"


def test_input_is_read_in_the_configured_zone() -> None:
    tokyo = Formats.of("Asia/Tokyo")
    assert tokyo.instant("2025-12-12T15:10", NOW) == NOW - 51_123
    assert tokyo.instant("2025-12-12T06:10:00Z", NOW) == NOW - 51_123
    assert tokyo.instant("2h", NOW) == NOW - 2 * HOUR
    with pytest.raises(ValueError, match="not an instant"):
        tokyo.instant("soon", NOW)


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (0, "just now"),
        (59_999, "just now"),
        (MINUTE, "1 min ago"),
        (59 * MINUTE, "59 min ago"),
        (47 * HOUR, "47 h ago"),
        (72 * HOUR, "3 d ago"),
        (-1, "in less than 1 min"),
        (-5 * MINUTE, "in 5 min"),
    ],
)
def test_an_age_changes_at_most_once_a_minute(age: int, words: str) -> None:
    assert formats.ago(NOW - age, NOW) == words


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0.000 s"),
        (9_999, "9.999 s"),
        (10_000, "10.0 s"),
        (59_999, "1 min 0 s"),
        (61_000, "1 min 1 s"),
        (2 * HOUR + 5 * MINUTE, "2 h 5 min"),
        (97 * HOUR + MINUTE, "4 d 1 h"),
    ],
)
def test_a_short_duration_is_shown_in_milliseconds(ms: int, words: str) -> None:
    assert elapsed(ms) == words
    assert formats.unbroken(words).replace("\N{NO-BREAK SPACE}", " ") == words


def test_a_duration_breaks_only_between_its_parts() -> None:
    assert formats.unbroken("2 h 5 min").split(" ") == [
        "2\N{NO-BREAK SPACE}h",
        "5\N{NO-BREAK SPACE}min",
    ]


@pytest.mark.parametrize(
    ("count", "words"),
    [(999, "999 bytes"), (1_500, "1.5 kB"), (251_000, "251 kB"), (999_600, "1.0 MB")],
)
def test_a_size_is_rounded(count: int, words: str) -> None:
    assert formats.size(count) == words


@pytest.mark.parametrize(
    ("counts", "half", "most"),
    [
        ({}, None, None),
        ({250: 1}, 250, 250),
        ({250: 94, 5_000: 6}, 250, 5_000),
        ({250: 95, SLOWEST: 5}, 250, 250),
        ({1_000: 1, SLOWEST: 9}, SLOWEST, SLOWEST),
    ],
)
def test_latency_is_shown_as_quantiles(
    counts: dict[int, int], half: int | None, most: int | None
) -> None:
    assert Quantiles.of(counts) == Quantiles(half, most)


@pytest.mark.parametrize(("value", "top"), [(0, 2), (1, 2), (3, 4), (5, 6), (11, 20), (501, 1_000)])
def test_an_axis_ends_at_a_round_number(value: int, top: int) -> None:
    assert charts.axis_end(value) == top


def test_the_middle_of_an_axis_is_an_integer() -> None:
    assert [value for value in range(2_000) if charts.axis_end(value) % 2] == []


def test_bars_are_proportional_to_their_numbers() -> None:
    good, bad = [0] * 24, [0] * 24
    good[3], bad[3], good[4] = 6, 4, 10
    drawn = charts.bars(
        "Results", NAMES, [BarSeries("good", good), BarSeries("bad", bad, is_hatched=True)]
    )
    heights = re.findall(r'class="bar (\w+)[^"]*".*?height="([\d.]+)"', drawn)
    assert heights == [("good", "70.8"), ("bad", "47.2"), ("good", "118.0")]
    assert "<title>03:00: 6 good, 4 bad</title>" in drawn
    assert 'fill="url(#hatch)"' in drawn  # distinguishable without colour


def test_a_chart_without_data_is_drawn() -> None:
    assert "0 callbacks" in charts.bars("Callbacks", NAMES, [BarSeries("callbacks", [0] * 24)])
    nothing = charts.latency("Latency", NAMES, [Quantiles(None, None)] * 24)
    assert "No callback arrived" in nothing
    assert "<circle" not in nothing


def test_lines_are_distinguishable_by_their_marks() -> None:
    found = [Quantiles(None, None)] * 22 + [Quantiles(250, 1_000), Quantiles(500, SLOWEST)]
    drawn = charts.latency("Latency", NAMES, found)
    assert (drawn.count("<circle"), drawn.count('class="mark p95"')) == (2, 2)
    assert "95 of 100 callbacks arrived later than 5 min" in drawn


def test_names_in_a_chart_are_escaped() -> None:
    drawn = charts.bars('"><script>', ["<b>"], [BarSeries("<i>", [1])])
    assert not re.search(r"<(script|b|i)>", drawn)
