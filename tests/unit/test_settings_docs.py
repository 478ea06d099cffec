"""Every setting that the programs read from the environment is documented, and no other."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# its libraries also read variables when they are imported, but these are not settings
import receiver.web.gunicorn
from receiver.config import env_example, settings
from submitter.errors import ConfigurationError
from submitter.providers import PROVIDERS
from tests.support import settings_reference

ROOT = Path(__file__).parents[2]
EXAMPLE = re.findall(r"^#? ?([A-Z][A-Z_]+)=", env_example.text(), re.MULTILINE)
PAGE = (ROOT / "docs" / "settings.md").read_text()
TABLE = [
    name
    for row in re.findall(r"^\| (`[A-Z].*?) \|", PAGE, re.MULTILINE)
    for name in re.findall(r"`([A-Z][A-Z_]+)`", row)
]


class RecordingEnvironment(dict[str, str]):
    """An empty environment that remembers which variables were read."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return default

    def __missing__(self, name: str) -> str:
        self.names.add(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return False


def read_the_receivers() -> None:
    settings.load()
    runpy.run_path(receiver.web.gunicorn.__file__)


def read_those_of(provider: str) -> Callable[[], None]:
    def read() -> None:
        with pytest.raises(ConfigurationError):
            PROVIDERS[provider].from_environment("default")

    return read


READERS = [read_the_receivers, *map(read_those_of, PROVIDERS)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    environment = RecordingEnvironment()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        patch.setattr(os, "environ", environment)
        for read in READERS:
            read()
    ours = {name for name in environment.names if re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)*", name)}
    return ours - {name for name in ours if name.endswith("_FILE") and name != "HOOKS_FILE"}


def test_the_example_contains_every_setting_once(asked: set[str]) -> None:
    assert len(set(EXAMPLE)) == len(EXAMPLE)
    assert set(EXAMPLE) == asked


def test_readme_has_a_row_for_every_setting(asked: set[str]) -> None:
    assert len(set(TABLE)) == len(TABLE)
    assert set(TABLE) == asked


@pytest.mark.parametrize("path", [settings_reference.EXAMPLE, settings_reference.PAGE])
def test_the_documents_are_generated_from_the_table(path: Path) -> None:
    text = path.read_text()
    assert text == settings_reference.written(path, text), settings_reference.__doc__


def test_the_search_finds_known_settings(asked: set[str]) -> None:
    assert {"PUBLIC_URL", "PORT", "KLING_WEBHOOK_SECRETS", "KLING_SECRET_KEY"} <= asked
