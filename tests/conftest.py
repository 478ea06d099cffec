"""What tests of every tier share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.stores.sqlite import SqliteStore

# A shell starts what it runs in the background with SIGINT ignored, and so would be everything
# that we start, whatever a test sends it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty, migrated SQLite record."""
    made = SqliteStore(tmp_path / "receiver.db")
    made.migrate()
    yield made
    made.close()
