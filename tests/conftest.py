"""What tests of every tier share."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from structlog.contextvars import clear_contextvars

from receiver.stores.postgres import PostgresStore
from receiver.stores.sqlite import SqliteStore
from tests.support.applications import MakeApp, applications
from tests.support.postgres_server import postgres

# A shell starts what it runs in the background with SIGINT ignored, and so would be everything
# that we start, whatever a test sends it.
signal.signal(signal.SIGINT, signal.default_int_handler)

TEMPLATE = "template_of_the_tests"
_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _nothing_bound() -> None:
    """What one test's request bound to the log's context stands in no line of another's."""
    clear_contextvars()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], SqliteStore]:
    """Makes an empty, migrated SQLite record at a path: a copy, for to migrate takes 30 ms."""
    template = tmp_path_factory.mktemp("template") / "receiver.db"
    SqliteStore(template).migrate()

    def make(path: Path) -> SqliteStore:
        for end in ("", "-lock"):
            shutil.copy(f"{template}{end}", f"{path}{end}")
        return SqliteStore(path)

    return make


@pytest.fixture
def store(tmp_path: Path, migrated: Callable[[Path], SqliteStore]) -> Iterator[SqliteStore]:
    """An empty, migrated SQLite record."""
    made = migrated(tmp_path / "receiver.db")
    yield made
    made.close()


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Makes applications as `create_app` does, which end with the test."""
    with applications() as make:
        yield make


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """One server for all tests, with a migrated database to be copied."""
    with postgres() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"create database {TEMPLATE}")
        template = PostgresStore(_of(url, TEMPLATE))
        template.migrate()
        template.close()
        yield url


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Makes an empty, migrated PostgreSQL record; its URL. The server starts at the first call."""

    made: list[str] = []

    def make() -> str:
        url, name = request.getfixturevalue("postgres_url"), f"test_{next(_numbers)}"
        with psycopg.connect(url, autocommit=True) as connection:
            # PostgreSQL 15 and newer write each page to the log, unless told so: twice as slow.
            how = " strategy file_copy" if connection.info.server_version >= 150_000 else ""
            connection.execute(f"create database {name} template {TEMPLATE}{how}")
        made.append(name)
        return _of(url, name)

    yield make
    if made:  # at once: the disk need never see it, and nobody waits for hundreds at the end
        with psycopg.connect(request.getfixturevalue("postgres_url"), autocommit=True) as last:
            for name in made:
                last.execute(f"drop database {name} with (force)")


def _of(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"
