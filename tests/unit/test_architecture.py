"""docs/architecture.md shows the layers that the import contracts enforce."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYER = re.compile(r"^[├└]── (\w+(?: \| \w+)*)(?:  |$)", re.MULTILINE)


def test_the_diagram_shows_the_layers_of_the_receiver() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one["name"] == "Layers of the receiver"]
    assert LAYER.findall(PAGE) == layers
