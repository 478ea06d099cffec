"""The benchmark still measures. Its results are not checked, because they depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
CEILING, US = "ceiling: Flask answers 200, 1 process", "us, SQLite, 1 process"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The output and the figures of one short round of the ceiling and our server."""
    file = tmp_path_factory.mktemp("bench") / "results.json"
    command = [sys.executable, "-m", "bench", "--smoke", "--results", str(file)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=3 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def rows(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in figures["callbacks"]}


def test_every_figure_is_present_and_above_zero(smoke: tuple[str, dict[str, Any]]) -> None:
    found = rows(smoke[1])
    assert set(found) == {CEILING, US}
    for row in found.values():
        for name in ("per_second", "p50_ms", "p99_ms", "rss_mb"):
            assert len(row[name]) == 1, (row, name)
            assert row[name][0] > 0, (row, name)
        assert row["p50_ms"] <= row["p99_ms"]


def test_every_callback_received_200_and_is_on_record(
    smoke: tuple[str, dict[str, Any]],
) -> None:
    for row in rows(smoke[1]).values():
        assert (row["refused"], row["broken"], row["lost"], row["repeated"]) == (0, 0, 0, 0)
        assert row["why_not"] == ""


def test_the_table_compares_every_row_with_the_first(smoke: tuple[str, dict[str, Any]]) -> None:
    lines = smoke[0].splitlines()
    first = next(line for line in lines if line.startswith(f"| {CEILING} |"))
    ours = next(line for line in lines if line.startswith(f"| {US} |"))
    assert first.split(" | ")[3] == "1.00"
    figures = rows(smoke[1])
    ratio = figures[US]["per_second"][0] / figures[CEILING]["per_second"][0]
    assert ours.split(" | ")[3] == f"{ratio:.2f}"


def test_a_target_without_a_measurement_is_marked(smoke: tuple[str, dict[str, Any]]) -> None:
    lines = smoke[0].splitlines()
    peer = next(line for line in lines if "Knocker" in line and "≥ 2" in line)
    assert peer.endswith("| not measured |")
    compared = next(line for line in lines if line.startswith("| us ÷ ceiling, 1 process each |"))
    assert compared.rpartition("| ")[2].startswith(("met |", "not met"))  # with its reason
