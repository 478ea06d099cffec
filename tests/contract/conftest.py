"""Every store room, empty and migrated: the contract is the same for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from postgres_server import postgres
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sqlite import SqliteStore

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server, with a migrated database to be copied."""
    with postgres() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create database template_of_the_tests")
        template = PostgresStore(_of(url, "template_of_the_tests"))
        template.migrate()
        template.close()
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        made: Store = SqliteStore(tmp_path / "receiver.db")
        made.migrate()
    else:
        made = PostgresStore(fresh(request.getfixturevalue("postgres_url")))
    yield made
    made.close()


def fresh(url: str) -> str:
    """The URL of a database of its own."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create database {name} template template_of_the_tests")
    return _of(url, name)


def _of(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"
