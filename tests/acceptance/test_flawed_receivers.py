"""Each bug is found by the scenario named after it, and our receiver passes all scenarios."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.flawed import receivers
from tests.support.flawed.receivers import VARIANTS
from tests.support.flawed.rigs import OurRig, Rig, SmallRig
from tests.support.flawed.scenarios import SCENARIOS, Caught

BUGS = [name for name in VARIANTS if name != "right"]
# Other scenarios that find a bug, with reasons.
ALSO = {
    "acknowledge-before-commit": {"order-assuming"},  # transitions that are not on record yet
    "side-effect-before-deduplication": {"no-idempotency-record"},  # it processes every copy
}
README = Path(receivers.__file__).with_name("README.md")


def caught(rig: Rig) -> dict[str, str]:
    """Return the problems, by the name of the scenario that found them."""
    seen = {}
    for name, scenario in SCENARIOS.items():
        try:
            scenario(rig)
        except Caught as sight:
            seen[name] = str(sight)
    return seen


def test_every_bug_has_its_scenario() -> None:
    assert set(SCENARIOS) == set(BUGS)
    assert len(BUGS) == 9


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[OurRig]:
    with closing(OurRig(tmp_path)) as rig:
        rig.start()
        yield rig


def test_our_receiver_passes_every_scenario(ours: OurRig) -> None:
    assert caught(ours) == {}


def watched(name: str, folder: Path) -> dict[str, str]:
    with closing(SmallRig(name, folder)) as rig:
        rig.start()
        return caught(rig)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_bug_is_found_by_its_scenario_and_no_other(name: str, tmp_path: Path) -> None:
    seen = watched(name, tmp_path)
    expected = set() if name == "right" else {name} | ALSO.get(name, set())
    assert seen.keys() == expected, seen


def test_the_table_in_the_docs_is_correct() -> None:
    rows = [line.strip("| ").split(" | ") for line in README.read_text().splitlines()]
    table = {row[0].strip("`"): row[1] for row in rows if row[0].strip("`") in VARIANTS}
    assert table.keys() == set(BUGS)
    for name, scenarios in table.items():
        assert set(scenarios.replace("`", "").split(", ")) == {name} | ALSO.get(name, set())
