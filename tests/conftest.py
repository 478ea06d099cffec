"""What tests of every tier share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.stores.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty, migrated SQLite record."""
    made = SqliteStore(tmp_path / "receiver.db")
    made.migrate()
    yield made
    made.close()
