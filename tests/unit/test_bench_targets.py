"""The benchmark's comparison of given figures with its targets."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench.report import report
from bench.targets import (
    ATTEMPT,
    CEILING,
    CEILING_OF_TWO,
    OF_BYTES,
    OF_TWO,
    POOLED,
    SLOW_DISK,
    TEN_HOOKS,
    US,
    US_OF_TWO,
)


def cell(variant: str, per_second: list[float], p99_ms: list[float]) -> dict[str, Any]:
    row = {"variant": variant, "disk": "this disk", "connections": 64, "why_not": "", "durable": ""}
    counts = dict.fromkeys(("refused", "broken", "lost", "repeated"), 0)
    figures = {"per_second": per_second, "p99_ms": p99_ms, "p50_ms": p99_ms}
    return row | counts | figures | {"cpu_ms": p99_ms, "rss_mb": p99_ms}


def lines_of(**found: Any) -> list[str]:
    results = {
        "machine": {},
        "fsync_ms": {},
        "versions": {},
        "missing": {},
        "plan": {"rounds": 3, "seconds": 2},
        "load": "wrk",
        "took_s": 60,
        **found,
    }
    return report(results).splitlines()


def https_row(name: str, cpu_ms: list[float]) -> dict[str, Any]:
    figures = {"per_second": [900], "p50_ms": [0.5], "p99_ms": [2.5]}
    return {"name": name, "cpu_ms": cpu_ms, **figures}


def test_an_https_attempt_is_compared_with_a_pooled_session_round_by_round() -> None:
    workers = [{"database": "HTTPS, 4 slots", "per_second": [210, 190], "cpu_ms": [1.5, 1.7]}]
    exchanges = [https_row(POOLED, [1, 2, 1]), https_row(ATTEMPT, [3, 3, 3])]
    hook = {"p50_ms": 11.04, "p99_ms": 25.0}
    lines = lines_of(https={"exchanges": exchanges, "workers": workers, "hook": hook})
    what = "CPU of an HTTPS attempt ÷ a POST on a pooled requests session"
    assert f"| {what} | ≤ 2.5 | 3 | not met |" in lines
    assert f"| {ATTEMPT} | 3.00 | 0.50 | 2.50 | 900 |" in lines
    assert "| HTTPS, 4 slots | 200 | 190 to 210 | 1.60 |" in lines
    assert any("over HTTPS: p50 11.0 ms, p99 25.0 ms" in line for line in lines)


@pytest.mark.parametrize(("cpu_ms", "verdict"), [([3, 1.4, 1.4], "met"), ([3, 3, 2], "not met")])
def test_ten_hooks_are_compared_with_two_round_by_round(cpu_ms: list[float], verdict: str) -> None:
    rows = [cell(US, [100, 100, 100], [2, 1, 1]), cell(TEN_HOOKS, [90, 90, 90], cpu_ms)]
    what = "CPU of a callback with ten hooks, five of them filtered ÷ with two hooks"
    (line,) = (line for line in lines_of(callbacks=rows) if line.startswith(f"| {what} |"))
    assert line.split(" | ")[1] == "≤ 1.5"
    assert line.endswith(f"| {verdict} |")


def test_a_row_that_misses_its_target_refers_to_the_explanation() -> None:
    weighed = {"events": 3, "deliveries_per_event": 2, "body": 257, "headers": 123}
    lines = lines_of(
        callbacks=[
            cell(CEILING, [100, 100, 100], [10, 10, 10]),
            cell(US, [200, 190, 210], [5, 5, 5]),
            cell(CEILING_OF_TWO, [200, 200, 200], [10, 10, 10]),
            cell(US_OF_TWO, [100, 100, 100], [20, 20, 20]),
        ],
        bytes=[
            weighed | {"deliveries": "many", "beyond": 656},
            weighed | {"deliveries": "few", "beyond": 440},
        ],
    )
    verdicts = {line.split(" | ")[0]: line for line in lines}
    assert verdicts["| us ÷ ceiling, 1 process each"].endswith("| 2 | met |")
    assert verdicts["| us ÷ ceiling, 2 processes each"].endswith("| 0.5 | not met: 1 |")
    assert verdicts["| p99 ÷ ceiling's p99, 1 process each"].endswith("| 0.5 | met |")
    assert verdicts["| p99 ÷ ceiling's p99, 2 processes each"].endswith("| 2 | not met: 1 |")
    assert f"1. {OF_TWO}" in lines
    of_bytes = "| bytes for each event beyond body and headers, deliveries"
    number = next(line for line in lines if line.endswith(OF_BYTES)).split(".")[0]
    assert verdicts[f"{of_bytes}: many"].endswith(f"| 656 | not met: {number} |")
    assert verdicts[f"{of_bytes}: few"].endswith("| 440 | met |")


def test_a_ratio_is_calculated_for_each_round_and_not_from_the_medians() -> None:
    lines = lines_of(
        callbacks=[
            cell(CEILING, [100, 200, 400], [10, 10, 10]),
            cell(US, [90, 100, 360], [10, 10, 10]),
        ]
    )
    assert "| us ÷ ceiling, 1 process each | ≥ 2 | 0.9 | not met: 1 |" in lines


def test_with_a_slow_disk_each_peer_that_commits_has_a_verdict() -> None:
    peer, missing = "Express + better-sqlite3 FULL", "FastAPI + uvicorn + sqlite3 FULL"
    cells = [cell(US, [900], [1]), cell(peer, [180], [1])]
    cells = [one | {"disk": SLOW_DISK} for one in cells]
    why = "could not be installed: no network"
    cells.append(cell(missing, [], []) | {"disk": SLOW_DISK, "why_not": why})
    lines = lines_of(callbacks=cells, missing={"fastapi": "no network"})
    assert f"| {US} ÷ {peer}, {SLOW_DISK} | ≥ 5 | 5 | met |" in lines
    assert f"| {US} ÷ {missing}, {SLOW_DISK} | ≥ 5 | — | not measured |" in lines
    assert any(line.startswith(f"| {missing} | — {why} |") for line in lines)
    assert "- not installed: fastapi: no network" in lines


def test_the_slowest_page_of_a_large_record_counts() -> None:
    empty = {"events": 0, "megabytes": 1, "inserts": [9], "duplicates": [9], "rare_list_ms": [1]}
    pages = {"/dashboard/": [40, 60, 51], "/dashboard/tasks": [7], "/api/tasks?limit=50": [3]}
    full = empty | {"events": 10**6, "pages_ms": pages}
    lines = lines_of(growth=[empty | {"pages_ms": {"/dashboard/tasks": [7]}}, full])
    assert "| `/dashboard/` | — | 51.0 |" in lines
    assert "| a dashboard page with 10⁶ tasks, the slowest | ≤ 50 ms | 51 ms | not met |" in lines
    assert "| an API list with 10⁶ tasks, the slowest | ≤ 10 ms | 3 ms | met |" in lines


def test_deliveries_and_copies_are_compared_with_the_figures_before() -> None:
    worker = {"database": "PostgreSQL, 16 slots", "per_second": [100, 384, 500], "cpu_ms": [1]}
    copied = {"tasks": 3, "rows": 24, "seconds": 0.001, "rows_per_second": 24_000}
    hooks = {"p50_ms": 9, "p99_ms": 30, "due_p50_ms": 2, "due_p99_ms": 21, "database": "SQLite"}
    lines = lines_of(worker=[worker], copy=copied, hooks=[hooks])
    what = "one worker, PostgreSQL, 16 slots: deliveries ÷ before (128 a second)"
    assert f"| {what} | ≥ 3 | 3 | met |" in lines
    assert "| copy to PostgreSQL: rows ÷ before (1,667 a second) | ≥ 10 | 14.4 | met |" in lines
    what = "an idle worker: due to hook request, p99, SQLite"
    assert f"| {what} | ≤ 20 ms | 21 ms | not met: 1 |" in lines
    assert "| SQLite, an idle worker, from the due time | 2.0 | 21.0 |" in lines


def test_many_tables_are_summarised_in_one() -> None:
    places = [(disk, many) for disk in ("this disk", "fsync +2 ms") for many in (1, 64)]
    cells = [cell(US, [many], [1]) | {"disk": disk, "connections": many} for disk, many in places]
    assert cells[-1]["per_second"] == [64]
    cells[-1]["why_not"] = "the second round failed"
    lines = lines_of(callbacks=cells)
    assert "|  | this disk: 1 | this disk: 64 | fsync +2 ms: 1 | fsync +2 ms: 64 |" in lines
    assert f"| {US} | 1 | 64 | 1 | — |" in lines
    assert not any(line.startswith("|  | this disk: 1 |") for line in lines_of(callbacks=cells[:2]))


def test_the_memory_is_shown_after_each_doubling_and_at_the_end() -> None:
    series = [(10, 60.0), (15, 61.0), (25, 62.0), (49, 63.0), (50, 64.0), (60, 65.0)]
    lines = lines_of(memory={"callbacks": 60, "wanted": 60, "series": series})
    rows = [line for line in lines if re.match(r"\| \d+ \| \d+\.\d \|", line)]
    assert rows == ["| 10 | 60.0 |", "| 25 | 62.0 |", "| 50 | 64.0 |", "| 60 | 65.0 |"]


@pytest.mark.parametrize("is_full", [True, False])
def test_results_of_the_long_and_the_short_run_are_stored_separately(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_full: bool
) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path / "short")
    monkeypatch.setattr(command, "MATRIX", tmp_path / "long")
    command.keep("tables", is_full=is_full)
    (stored,) = tmp_path.iterdir()
    assert stored.name == ("long" if is_full else "short")
    assert stored.read_text().endswith("tables")


@pytest.mark.parametrize("part", [["--only", "import"], ["--smoke"]])
def test_a_partial_run_cannot_be_stored_as_a_full_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--write", *part])
    with pytest.raises(SystemExit):
        command.arguments()
    assert "leave out --only and --smoke" in capsys.readouterr().err


def test_a_figure_that_was_not_measured_has_its_own_verdict() -> None:
    verdicts = {line.rsplit(" | ", 1)[1] for line in lines_of() if "≥" in line or "≤" in line}
    assert verdicts == {"not measured |"}
