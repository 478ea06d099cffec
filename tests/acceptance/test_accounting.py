"""Acknowledged callbacks are stored even if another program removes files of the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import accounting
from bench.accounting import FAULTS, SQLITE, Row
from bench.report import table


@pytest.mark.parametrize("first", [0, 1], ids=["SIGTERM afterwards", "SIGKILL afterwards"])
def test_removed_files_lose_no_acknowledged_callback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """The test uses the real server, with two web processes and a worker, under load."""
    fault, databases = FAULTS["unlinked"]
    monkeypatch.setitem(
        FAULTS,
        "unlinked",
        (lambda service, number: fault(service, number + first), databases),
    )
    row = accounting.account("unlinked", SQLITE, 1, tmp_path)
    assert row.why_not == ""
    assert row.acknowledged >= 2 * accounting.BETWEEN
    assert (row.lost, row.duplicated) == (0, 0)


def test_the_table_is_written_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    old = table(accounting.COLUMNS, [Row("a fault", "SQLite").cells()])
    page.write_text(f"before\n\n{old}\n\nafter\n")
    monkeypatch.setattr(accounting, "PAGE", page)
    new = table(accounting.COLUMNS, [Row("another", "PostgreSQL", lost=3).cells()])
    accounting.write(new)
    assert page.read_text() == f"before\n\n{new}\n\nafter\n"
    page.write_text("no table")
    with pytest.raises(ValueError, match="has no table"):
        accounting.write(new)
