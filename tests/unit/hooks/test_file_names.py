"""The file names of one task are recognised exactly and in linear time."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.hooks.file_names import DIGITS, Characters, Literal, NamePattern, OptionalNumber, Part

LETTERS = frozenset(string.ascii_lowercase)
PARTS = st.one_of(
    st.builds(Literal, st.text("ab-.1", max_size=3)),
    st.sampled_from(
        [Characters(DIGITS), Characters(LETTERS | DIGITS), Characters(LETTERS | set("-"))]
    ),
    st.just(OptionalNumber()),
)


def expression(part: Part) -> str:
    """Return the same pattern as a regular expression, which is shorter but can backtrack."""
    if isinstance(part, Literal):
        return re.escape(part.text)
    if isinstance(part, OptionalNumber):
        return r"(-[0-9]+)?"
    return f"[{re.escape(''.join(sorted(part.allowed)))}]+"


@given(st.lists(PARTS, max_size=5), st.text("ab-.1", max_size=8))
def test_a_pattern_matches_like_a_regular_expression(parts: list[Part], name: str) -> None:
    wanted = re.fullmatch("".join(map(expression, parts)), name) is not None
    assert NamePattern(tuple(parts)).matches(name) is wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("a-1/0.png", True), ("a-1/0-2.png", True), ("a-1/x.png", False), ("a-1/0-.png", False)],
)
def test_a_further_output_with_the_same_name_has_a_number(name: str, wanted: bool) -> None:
    parts = (
        Literal("a-1/"),
        Characters(DIGITS),
        OptionalNumber(),
        Literal("."),
        Characters(LETTERS),
    )
    assert NamePattern(parts).matches(name) is wanted


def test_the_glob_pattern_matches_values_literally() -> None:
    assert (
        NamePattern((Literal("[a]*"), Characters(LETTERS), OptionalNumber())).pattern
        == "[[]a][*]**"
    )


def test_a_hostile_name_is_scanned_once_for_each_part() -> None:
    """A regular expression that backtracks would try every way to divide the name."""
    scanned: list[str] = []

    class Watched(frozenset[str]):
        def __contains__(self, char: object) -> bool:
            scanned.append(str(char))
            return super().__contains__(char)

    name, runs = "a" * 200, 10
    assert not NamePattern((*[Characters(Watched("a"))] * runs, Literal("!"))).matches(name)
    assert len(scanned) == len(name) * runs
