"""Every store, empty and migrated: the contract is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from receiver.stores import postgres, sqlite
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sqlite import SqliteStore
from tests.support.databases import Databases


@pytest.fixture(params=["sqlite", "postgres"])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    migrated: Callable[[Path], Store],
) -> Iterator[Store]:
    if request.param == "postgres":
        databases: Databases = request.getfixturevalue("_databases")
        with databases.shared_store() as shared:
            yield shared
        return
    store = migrated(tmp_path / "receiver.db")
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def lacking(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Store]:
    """Return a function that creates a new record with all migrations except the given ones."""
    schema, files = {
        "sqlite": (sqlite.schema, "_files"),
        "postgres": (postgres.schema, "_ours"),
    }[request.param]
    everything = getattr(schema, files)()

    def made(*left_out: str) -> Store:
        some = [(name, sql) for name, sql in everything if name not in left_out]
        monkeypatch.setattr(schema, files, lambda: some)
        store = _empty(request, tmp_path, f"lacks_{len(left_out)}")
        store.migrate()
        monkeypatch.setattr(schema, files, lambda: everything)
        request.addfinalizer(store.close)
        return store

    return made


def _empty(request: pytest.FixtureRequest, folder: Path, name: str) -> Store:
    if request.param == "sqlite":
        return SqliteStore(folder / f"{name}.db")
    url = request.getfixturevalue("postgres_url")
    name = f"{name}_{abs(hash(folder)):x}".lower()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return PostgresStore(f"{url.rpartition('/')[0]}/{name}")
