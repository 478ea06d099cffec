"""A sandbox, and an installation that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.server import Sandbox
from tests.support.demo_run import Played, play
from tests.support.installation import Installation


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(pace=0.3) as sandbox:
        yield sandbox


@pytest.fixture
def database(request: pytest.FixtureRequest, fresh: Callable[[], str]) -> str | None:
    """The URL of the record; None means SQLite's default.

    Tests that need both are `both_stores`.
    """
    return fresh() if getattr(request, "param", "sqlite") == "postgres" else None


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The demo on SQLite, which runs once for all tests that check it."""
    return play(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def installation(tmp_path: Path, sandbox: Sandbox, database: str | None) -> Iterator[Installation]:
    installation = Installation(tmp_path, sandbox, database)
    installation.migrate()
    try:
        yield installation
    finally:
        installation.close()
