"""Draws a random scenario for each task without one of its own."""

from __future__ import annotations

import random
from collections.abc import Iterable

from sandbox.scenarios.scenario import SCENARIOS, SUCCEED, Scenario, UnknownScenarioError, named

ALL = "all"


class Chaos:
    """Draws scenarios by percentage; all other tasks succeed.

    The same seed gives the same sequence.
    """

    def __init__(self, shares: dict[str, float] | None = None, seed: int | None = None) -> None:
        self._shares = {named(name): percent for name, percent in (shares or {}).items()}
        self._random = random.Random(seed)  # noqa: S311 - to repeat a run, not to keep a secret

    def draw(self, provider: str, *, signs: bool) -> Scenario:
        """Return a scenario that this provider can play."""
        drawn, left = self._random.uniform(0, 100), 0.0
        for scenario, percent in self._shares.items():
            left += percent
            if drawn < left:
                return scenario if scenario.obstacle(provider, signs=signs) is None else SUCCEED
        return SUCCEED


def shares(text: str) -> dict[str, float]:
    """Parse `dropped=20,duplicates` or `all` into percentages by scenario name.

    Scenarios without a percentage share the rest equally. Raises UnknownScenarioError.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts == [ALL]:
        parts = list(SCENARIOS)
    found = {name.strip(): percent.strip() for name, _, percent in map(_split, parts)}
    for name in found:
        named(name)
    given = {name: _percent(name, percent) for name, percent in found.items() if percent}
    left = 100 - sum(given.values())
    if left < 0 or not parts:
        raise UnknownScenarioError(
            "--chaos: name scenarios; their percentages may add up to at most 100"
        )
    open_ones = len(found) - len(given)
    return {name: given.get(name, left / open_ones if open_ones else 0) for name in found}


def _split(part: str) -> Iterable[str]:
    return part.partition("=")


def _percent(name: str, text: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise UnknownScenarioError(
            f"--chaos: {name}={text} is not a percentage; write it like {name}=20"
        )
    return percent
