"""Every store room, empty and migrated: the contract is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sqlite import SqliteStore


@pytest.fixture(params=["sqlite", "postgres"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, fresh: Callable[[], str]
) -> Iterator[Store]:
    if request.param == "sqlite":
        made: Store = SqliteStore(tmp_path / "receiver.db")
        made.migrate()
    else:
        made = PostgresStore(fresh())
    yield made
    made.close()
