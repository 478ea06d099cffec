"""The meaning of `--chaos`, and the errors for mistakes in it."""

from __future__ import annotations

import pytest

from sandbox.scenarios.chaos import Chaos, shares
from sandbox.scenarios.scenario import SCENARIOS, UnknownScenarioError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dropped", {"dropped": 100}),
        ("dropped,duplicates", {"dropped": 50, "duplicates": 50}),
        ("dropped=20", {"dropped": 20}),
        ("dropped=20%, duplicates", {"dropped": 20, "duplicates": 80}),
        ("dropped=20,duplicates,burst", {"dropped": 20, "duplicates": 40, "burst": 40}),
    ],
)
def test_scenarios_without_a_percentage_share_the_rest(
    text: str, expected: dict[str, float]
) -> None:
    assert shares(text) == expected


def test_all_scenarios_are_equally_likely() -> None:
    found = shares("all")
    assert found.keys() == SCENARIOS.keys()
    assert len(set(found.values())) == 1


@pytest.mark.parametrize(
    "text", ["", ",", "dorpped", "dropped=x", "dropped=-1", "dropped=60,burst=60"]
)
def test_a_mistake_is_reported(text: str) -> None:
    with pytest.raises(UnknownScenarioError):
        shares(text)


def test_a_scenario_that_a_provider_does_not_support_succeeds() -> None:
    chaos = Chaos({"wrong-signature": 100}, seed=1)
    assert chaos.draw("kling", signs=False).name == "succeed"
    assert chaos.draw("kling", signs=True).name == "wrong-signature"
