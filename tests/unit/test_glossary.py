"""docs/glossary.md explains every value that people meet, in order, in a sentence each."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from receiver.deliveries import State
from receiver.endpoints import Circuit
from receiver.tasks import Outcome, Status, Trust

DOCS = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text()
ENTRY = re.compile(r"^- \*\*(.+?)\*\*(?: \((\w+)\))?: (.+?)(?=\n- |\Z)", re.MULTILINE | re.DOTALL)
ENTRIES = ENTRY.findall(DOCS)
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


def test_the_terms_are_in_order() -> None:
    terms = [term.strip("`").lower() for term, _, _ in ENTRIES]
    assert terms == sorted(set(terms))
    assert len(terms) == DOCS.count("\n- ")


@pytest.mark.parametrize(("term", "text"), [(term, text) for term, _, text in ENTRIES])
def test_a_term_has_one_sentence(term: str, text: str) -> None:
    assert text.strip().endswith("."), term
    assert not re.search(r"\. [A-Z]", " ".join(text.split())), term
