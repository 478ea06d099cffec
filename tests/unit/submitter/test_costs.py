"""Prices of providers are added up exactly, and units are never mixed."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.stores.sql.queries import Charge
from submitter.cli.costs import CostSum, month

NOVEMBER, DECEMBER = 1_763_000_000_000, 1_764_547_200_000  # the first instant of December


def charge(cost: str, **more: Any) -> Charge:
    values = {
        "row": 1,
        "provider": "kling",
        "account": "default",
        "reference": None,
        "created_at": NOVEMBER,
        "unit": "units",
    }
    return Charge(**{**values, **more, "cost": cost})


def summed(by: str, *found: Charge) -> list[tuple[str, ...]]:
    total = CostSum(by)
    for one in found:
        total.add(one)
    return [line.row() for line in total.lines()]


def test_decimals_are_added_exactly() -> None:
    tenths = [charge("0.1") for _ in range(10)]
    assert summed("month", *tenths) == [("2025-11", "kling", "units", "10", "1.0")]
    big, small = "999999999999999999", "0.000000000000000001"
    ((*_, cost),) = summed("month", charge(big), charge(small), charge(big))
    assert cost == "1999999999999999998.000000000000000001"


def test_units_and_providers_are_never_mixed() -> None:
    found = summed(
        "month",
        charge("1"),
        charge("2", unit="USD"),
        charge("3", unit=None),
        charge("4", provider="appypie"),
    )
    assert found == [
        ("2025-11", "appypie", "units", "1", "4"),
        ("2025-11", "kling", "?", "1", "3"),
        ("2025-11", "kling", "USD", "1", "2"),
        ("2025-11", "kling", "units", "1", "1"),
    ]


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("month", ["2025-11", "2025-12"]),
        ("account", ["default", "shop2"]),
        ("reference", ["", "ORDER-7"]),
    ],
)
def test_costs_are_grouped(by: str, groups: list[str]) -> None:
    other = charge("2", account="shop2", reference="ORDER-7", created_at=DECEMBER)
    assert [row[0] for row in summed(by, other, charge("1"))] == groups


def test_a_month_begins_at_midnight_utc() -> None:
    assert month(charge("1", created_at=DECEMBER - 1)) == "2025-11"
    assert month(charge("1", created_at=DECEMBER)) == "2025-12"


@pytest.mark.parametrize("odd", ["free", "NaN", "Infinity", "1e999999999", "1_000", "٣", "", "1,5"])
def test_values_that_are_not_numbers_are_counted_separately(odd: str) -> None:
    total = CostSum("month")
    total.add(charge(odd))
    total.add(charge("-0.5"))
    assert total.not_numbers == 1
    assert [line.row()[3:] for line in total.lines()] == [("1", "-0.5")]
