"""No code outside the adapters contains the name of a provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.providers import PROVIDERS
from tests.support.docs_pages import ROOT
from tests.support.syntax_trees import Nodes, docstrings, nodes_in, nodes_of

ADAPTERS = {ROOT / "receiver" / "providers", ROOT / "submitter" / "providers"}
MODULES = [
    path
    for package in ("receiver", "submitter")
    for path in sorted((ROOT / package).rglob("*.py"))
    if not ADAPTERS & set(path.parents)
]
TEXTS = [
    path
    for path in sorted((ROOT / "receiver" / "web").rglob("*"))
    if path.suffix in (".html", ".js", ".css")
]
NAME = re.compile("|".join([*PROVIDERS, "appy pie"]), re.IGNORECASE)
SETTING = re.compile(r"\b[A-Z][A-Z0-9]*(_[A-Z0-9]+)+\b")  # such as KLING_ACCESS_KEY, in help texts


def names_in(nodes: Nodes) -> Iterator[str]:
    """Yield the names of providers in identifiers and strings, except docstrings and comments."""
    left_out = docstrings(nodes)
    for node in nodes:
        for field in ("id", "attr", "name", "module", "arg", "value"):
            text = getattr(node, field, None)
            if isinstance(text, str) and node not in left_out:
                yield from NAME.findall(SETTING.sub("", text))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_contains_no_provider_name(path: Path) -> None:
    assert list(names_in(nodes_in(path))) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_a_page_contains_no_provider_name(path: Path) -> None:
    assert NAME.findall(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from receiver.providers import kling", ["kling"]),
        ("from receiver.providers.modellix import X", ["modellix"]),
        ('if task.provider == "appypie": pass', ["appypie"]),
        ("KLING_KEYS = 1", []),
        ("is_kling = klingTask.kling_id", ["kling"] * 3),
        ('f(kling="Use Kling")', ["kling", "Kling"]),
        ('"""Such as Kling."""\nhelp = "reads KLING_SHOP2_API_KEY"', []),
    ],
)
def test_the_search_finds_names_in_code(source: str, names: list[str]) -> None:
    assert sorted(names_in(nodes_of(source))) == sorted(names)


@pytest.mark.parametrize("package", ["receiver", "submitter"])
def test_only_the_registry_imports_an_adapter(package: str) -> None:
    """This includes the modules that adapters share."""
    folder = ROOT / package / "providers"
    adapter = re.compile(
        rf"from {package}\.providers(\.({'|'.join(PROVIDERS)}) | import .*\b("
        rf"{'|'.join(PROVIDERS)})\b)"
        rf"|\"{package}\.providers\.({'|'.join(PROVIDERS)}):"  # imported when it is used
    )
    importers = {path.name for path in folder.glob("*.py") if adapter.search(path.read_text())}
    assert importers == {"__init__.py"}
