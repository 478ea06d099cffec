"""Every import path in the documentation and the deployment files can be imported."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docs_pages import PAGES, ROOT, blocks

FILES = (
    *PAGES,
    ROOT / "CONTRIBUTING.md",
    ROOT / "Procfile",
    ROOT / "Dockerfile",
    ROOT / "gunicorn.conf.py",
    ROOT / "wsgi.py",
    *sorted((ROOT / "deploy").rglob("*.service")),
)
# In backticks or after a colon, such as `receiver.errors` or python:receiver.web.gunicorn.
DOTTED = re.compile(r"[`:]((?:receiver|submitter|sandbox)(?:\.\w+)+)(?=[`( ])")
RUN = re.compile(r"python -m ((?:receiver|submitter|sandbox|tests|bench)(?:\.\w+)*)")
IMPORTS = re.compile(r"^ ?((?:from|import) (?:receiver|submitter|sandbox)\b.*?)$", re.MULTILINE)
FILE_NAMES = (".db", ".service", ".conf", ".toml")
EXAMPLES = ("ntfy", "tailor")  # modules that a page asks the reader to write


def imported_in(source: str) -> Iterator[str]:
    """Yield the dotted names that Python source imports from our packages."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def names_in(file: Path) -> Iterator[str]:
    """Yield the dotted names in the file."""
    text = file.read_text(encoding="utf-8")
    yield from DOTTED.findall(text)
    yield from RUN.findall(text)
    if file.suffix == ".py":
        yield from imported_in(text)
    elif file.suffix == ".md":
        for block in blocks(file):
            if block.language == "python":
                yield from imported_in(block.text)
            elif block.language == "diff":
                yield from imported_in("\n".join(IMPORTS.findall(block.text)))


def documented_paths() -> dict[str, Path]:
    """Return every dotted name, with one of the files that contain it."""
    return {name: file for file in FILES for name in names_in(file) if _is_ours(name)}


def _is_ours(name: str) -> bool:
    first, *others = name.split(".")
    return (
        first in ("receiver", "submitter", "sandbox", "bench", "tests")
        and not name.endswith(FILE_NAMES)
        and not any(part in EXAMPLES for part in others)
    )


PATHS = documented_paths()


@pytest.mark.parametrize("name", sorted(PATHS))
def test_a_documented_path_can_be_imported(name: str) -> None:
    module_name, attributes = name, list[str]()
    while True:
        try:
            found: object = importlib.import_module(module_name)
            break
        except ModuleNotFoundError:
            module_name, _, last = module_name.rpartition(".")
            assert module_name, f"{PATHS[name].name} names {name}, which does not exist"
            attributes.insert(0, last)
    for attribute in attributes:
        if attribute != "*":
            found = getattr(found, attribute)


@pytest.mark.parametrize(
    "name",
    [
        "receiver.errors.PermanentFailure",
        "receiver.hooks.base.Done",
        "receiver.providers.fields.Identity",
        "receiver.web.gunicorn",
        "submitter.submit",
    ],
)
def test_the_search_finds_known_paths(name: str) -> None:
    assert name in PATHS
