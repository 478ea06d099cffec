"""A callback and a delivery run through few files and functions."""

from __future__ import annotations

import pytest

from tests.support.call_paths import CallPath, measure

PATHS = ("first callback, default front", "first callback, Flask view", "one webhook delivery")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CallPath]:
    return {path.name: path for path in measure(tmp_path_factory.mktemp("call_paths"))}


@pytest.mark.parametrize("name", PATHS)
def test_a_call_path_stays_within_its_limits(name: str, measured: dict[str, CallPath]) -> None:
    path = measured[name]
    assert len(path.functions) > 20, "too few calls were recorded"
    assert path.problems == []


def test_every_path_is_checked(measured: dict[str, CallPath]) -> None:
    assert set(measured) == set(PATHS)
