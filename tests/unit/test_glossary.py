"""docs/glossary.md explains every value in one sentence, in order, and names existing classes."""

from __future__ import annotations

import importlib
import re
from enum import StrEnum
from pathlib import Path

import pytest

from receiver.deliveries import State
from receiver.endpoints import Circuit
from receiver.tasks import Outcome, Status, Trust

DOCS = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text()
ENTRY = re.compile(
    r"^- \*\*(.+?)\*\*(?: \((\w+)\))?: (.+?)(?=\n- |\n\n|\Z)", re.MULTILINE | re.DOTALL
)
ENTRIES = ENTRY.findall(DOCS)
CLASSES = re.findall(r"^\| ([\w -]+) \| `([\w.]+)\.(\w+)` \|$", DOCS, re.MULTILINE)
KINDS: dict[str, type[StrEnum]] = {
    "circuit": Circuit,
    "delivery": State,
    "outcome": Outcome,
    "status": Status,
    "trust": Trust,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_has_an_entry_and_every_such_entry_a_value(kind: str) -> None:
    explained = {term for term, of, _ in ENTRIES if of == kind}
    assert explained == {f"`{member.value}`" for member in KINDS[kind]}


def test_the_terms_are_in_alphabetical_order() -> None:
    terms = [term.strip("`").lower() for term, _, _ in ENTRIES]
    assert terms == sorted(set(terms))
    assert len(terms) == DOCS.count("\n- ")


@pytest.mark.parametrize(("term", "text"), [(term, text) for term, _, text in ENTRIES])
def test_a_term_is_explained_in_one_sentence(term: str, text: str) -> None:
    assert text.strip().endswith("."), term
    assert not re.search(r"\. [A-Z]", " ".join(text.split())), term


@pytest.mark.parametrize(("term", "module", "name"), CLASSES)
def test_a_class_exists_and_is_named_after_its_term(term: str, module: str, name: str) -> None:
    assert term in {entry for entry, _, _ in ENTRIES}
    assert getattr(importlib.import_module(module), name).__name__ == name
    assert name.lower() in term.title().replace(" ", "").lower()


def test_every_class_with_a_term_is_listed() -> None:
    """A term that equals the name of a class in these modules has to be in the table."""
    modules = ("receiver.deliveries", "receiver.endpoints", "receiver.events", "receiver.tasks")
    classes = {
        (module, name)
        for module in modules
        for name, value in vars(importlib.import_module(module)).items()
        if isinstance(value, type) and value.__module__ == module
    }
    terms = {term for term, _, _ in ENTRIES}
    named = {(module, name) for module, name in classes if name.lower() in terms}
    assert named
    assert named <= {(module, name) for _, module, name in CLASSES}
