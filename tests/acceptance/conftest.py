"""A sandbox, and an installation that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from sandbox.server import Sandbox
from tests.support.demo_run import Played, play
from tests.support.installation import ROOT, Installation


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(pace=0.3) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def small_pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The sandbox's person and garment, hardly larger than the smallest pictures Kling accepts.

    In a test with hundreds of results, they halve the CPU time of thumbnails and mails.
    """
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for name in ("person.jpg", "garment.png"):
        with Image.open(ROOT / "sandbox/images" / name) as picture:
            picture.resize((320, 320)).save(folder / name)
        paths.append(str(folder / name))
    return paths[0], paths[1]


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
