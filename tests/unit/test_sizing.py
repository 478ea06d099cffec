"""The tables of docs/scaling.md can be replaced by those of a new measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import sizing

VARIANTS = [
    f"{database}, {web}"
    for database in ("SQLite", "PostgreSQL")
    for web in ("1 web process", "2 web processes")
]


def test_each_table_replaces_its_predecessor_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "scaling.md"
    page.write_text(sizing.PAGE.read_text())
    words = [line for line in page.read_text().splitlines() if not line.startswith("|")]
    monkeypatch.setattr(sizing, "PAGE", page)
    figures = sizing.Measured(1234, 1.1, 0.25, 0, 150, 5, 3)
    on_postgres = sizing.Measured(1234, 1.1, 0.25, 4000, 150, 5, 3)
    found = {name: figures if name.startswith("SQL") else on_postgres for name in VARIANTS}
    tables = sizing.tables(found, [("cores", "2")])
    sizing.write(tables)
    assert all(table in page.read_text() for table in tables)
    assert "667 \u00d7 3.0 ms = 2.2 cores | 4 to 8 cores |" in page.read_text()
    assert [line for line in page.read_text().splitlines() if not line.startswith("|")] == words


def test_a_table_that_the_page_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no table that begins: \| a stray \|"):
        sizing.write(["| a stray |\n|---|"])
