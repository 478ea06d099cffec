"""A sandbox, and an installation that uses it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from sandbox.server import Sandbox
from tests.support.bare_environment import run
from tests.support.clean_venv import clean_venv
from tests.support.demo_run import Played, play_with
from tests.support.installation import ROOT, Installation
from tests.support.plugin_packages import build

NOT_OURS = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "data")


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
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, because a build leaves folders in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=NOT_OURS)
    return build(copy, folder)


@pytest.fixture(scope="session")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the installed wheel, in which nothing refers to the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    python = clean_venv(folder) / "python"
    with pytest.raises(AssertionError, match="No module named 'receiver'"):
        run(str(python), "-c", "import receiver", cwd=folder)
    install = (sys.executable, "-m", "uv", "pip", "install", "--python", str(python))
    options = ("--offline", "--no-deps", "--compile-bytecode")  # as pip does, in half the time
    run(*install, *options, str(wheel), cwd=folder)
    run(sys.executable, "-m", "pip", "--python", str(python), "check", cwd=folder)
    return folder


@pytest.fixture(scope="session")
def demo(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The demo on SQLite, which an installed wheel runs once for all tests that check it."""
    return play_with(venv / "bin" / "sandbox", tmp_path_factory.mktemp("demo"))


@pytest.fixture
def installation(tmp_path: Path, sandbox: Sandbox, database: str | None) -> Iterator[Installation]:
    installation = Installation(tmp_path, sandbox, database)
    installation.migrate()
    try:
        yield installation
    finally:
        installation.close()
