"""Decides whether a regular expression takes linear time in Python's backtracking engine.

The engine tries the ways to read a text one after the other. It takes linear time if there is a
bound on how many ways there are to read a part of the text, however long that part is. The
expression is turned into a nondeterministic automaton, in which searching is a loop before the
first state. There is no such bound if and only if two different states p and q and a text exist
that leads from p to p, from p to q and from q to q (Weber and Seidl, "On the degree of ambiguity of
finite automata", 1991).
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Iterable
from functools import cache
from typing import Any

_parser: Any = importlib.import_module("re._parser")
_compiler: Any = importlib.import_module("re._compiler")
_names: Any = importlib.import_module("re._constants")

MOST_STATES = 2_000  # a larger automaton is refused, because bounded repeats cost time as well
MOST_STEPS = 100_000  # of the check itself
MOST_LOOKED_AHEAD = 100  # characters
# Characters of every kind that an expression can distinguish.
SAMPLES = [chr(code) for code in range(128)]
SAMPLES += ["\x85", "\xa0", "é", "\u0130", "\u0131", "\u017f", "\u212a", "٣", "\u2028", "…"]
SAMPLES += ["中", "😀", "\ud800"]
BYTES = [bytes([code]) for code in range(256)]

Edge = tuple[int, int]  # the characters as a bit mask, and the following state


class NotLinear(Exception):
    """The expression may take more than linear time; the message gives the reason."""


def check(pattern: str | bytes, flags: int = 0, *, searches: bool, whole: bool = False) -> None:
    """Raise NotLinear for an expression that is not linear or that cannot be judged.

    `searches`: a match may begin anywhere. `whole`: it must reach the end, as for `fullmatch`.
    """
    parsed = _parser.parse(pattern, flags)
    automaton = _Automaton(isinstance(pattern, bytes))
    start = automaton.state()
    end = automaton.read(parsed, start, parsed.state.flags | flags)
    if searches and not _is_anchored(parsed, parsed.state.flags | flags):
        automaton.edges[start].append((automaton.every, start))  # each position is tried
        begun = automaton.state()
        automaton.empty[begun].append((start, False))
        start = begun
    _check_ambiguity(automaton.without_empty_edges(start, end, whole=whole))


def _is_anchored(parsed: Any, flags: int) -> bool:
    operator, argument = parsed[0] if len(parsed) else (None, None)
    if operator is not _names.AT:
        return False
    is_line = argument is _names.AT_BEGINNING and flags & re.MULTILINE
    return argument in (_names.AT_BEGINNING, _names.AT_BEGINNING_STRING) and not is_line


class _Automaton:
    def __init__(self, reads_bytes: bool) -> None:
        self.edges: list[list[Edge]] = []
        self.empty: list[list[tuple[int, bool]]] = []  # the state, and if a condition guards it
        self._samples: list[Any] = list(BYTES if reads_bytes else SAMPLES)
        self.every = (1 << len(self._samples)) - 1

    def state(self) -> int:
        if len(self.edges) >= MOST_STATES:
            raise NotLinear("it is too large to be judged")
        self.edges.append([])
        self.empty.append([])
        return len(self.edges) - 1

    def read(self, parsed: Any, start: int, flags: int) -> int:
        """Add the edges of the expression, beginning at this state; return the state after it."""
        for operator, argument in parsed:
            start = self._read_one(operator, argument, parsed, start, flags)
        return start

    def _read_one(self, operator: Any, argument: Any, parsed: Any, start: int, flags: int) -> int:
        name = str(operator)
        if name in {"LITERAL", "NOT_LITERAL", "ANY", "IN"}:
            following = self.state()
            mask = self._mask(_parser.SubPattern(parsed.state, [(operator, argument)]), flags)
            self.edges[start].append((mask, following))
            return following
        if name == "SUBPATTERN":
            _, added, removed, inner = argument
            if removed:
                raise NotLinear("it switches flags off, which cannot be judged")
            return self.read(inner, start, flags | added)
        if name == "ATOMIC_GROUP":
            return self.read(argument, start, flags)
        if name == "BRANCH":
            return self._join([self.read(inner, start, flags) for inner in argument[1]])
        if name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            return self._repeat(argument, start, flags)
        if name == "AT":
            return self._guarded(start)
        if name in {"ASSERT", "ASSERT_NOT"}:
            if argument[1].getwidth()[1] > MOST_LOOKED_AHEAD:
                raise NotLinear("it looks ahead without a bound")
            return self._guarded(start)
        raise NotLinear(f"{name} cannot be judged")

    def _repeat(self, argument: Any, start: int, flags: int) -> int:
        least, most, inner = argument
        for _ in range(least):
            start = self.read(inner, start, flags)
        ends = [start]
        if most == _names.MAXREPEAT:
            loop = self._join([start])
            self.empty[self.read(inner, loop, flags)].append((loop, False))
            ends = [loop]
        else:
            for _ in range(most - least):
                ends.append(self.read(inner, ends[-1], flags))
        return self._join(ends)

    def _join(self, ends: Iterable[int]) -> int:
        joined = self.state()
        for end in ends:
            self.empty[end].append((joined, False))
        return joined

    def _guarded(self, start: int) -> int:
        following = self.state()
        self.empty[start].append((following, True))
        return following

    def _mask(self, one: Any, flags: int) -> int:
        matcher = _compiler.compile(one, flags)
        found = (bool(matcher.fullmatch(sample)) for sample in self._samples)
        return sum(is_in << place for place, is_in in enumerate(found))

    def without_empty_edges(self, start: int, end: int, *, whole: bool) -> dict[int, list[Edge]]:
        """Return the edges of each state that can be reached."""
        found: dict[int, list[Edge]] = {}
        waiting = [start]
        while waiting:
            state = waiting.pop()
            if state in found:
                continue
            edges, accepts = self._behind(state, end)
            # The first match is the only one, so the text after it is read once.
            found[state] = [] if accepts and not whole else edges
            waiting += [target for _, target in found[state]]
        return found

    def _behind(self, state: int, end: int) -> tuple[list[Edge], bool]:
        edges: list[Edge] = []
        accepts = False
        seen: set[int] = set()
        waiting = [(state, False)]
        while waiting:
            one, is_guarded = waiting.pop()
            if one in seen:
                raise NotLinear("an empty part can be read in several ways")
            seen.add(one)
            edges += self.edges[one]
            accepts = accepts or (one == end and not is_guarded)
            waiting += [(target, guard or is_guarded) for target, guard in self.empty[one]]
        return edges, accepts


def _check_ambiguity(edges: dict[int, list[Edge]]) -> None:
    reached = {state: _reached(edges, state) for state in edges}
    repeating = [state for state in edges if state in reached[state]]
    for p in repeating:
        for q in repeating:
            if p != q and q in reached[p] and _meet(edges, reached, p, q):
                raise NotLinear("a text can be read in a number of ways that grows with its length")


def _reached(edges: dict[int, list[Edge]], state: int) -> set[int]:
    """Return the states after at least one character."""
    found: set[int] = set()
    waiting = [state]
    while waiting:
        for mask, target in edges[waiting.pop()]:
            if mask and target not in found:
                found.add(target)
                waiting.append(target)
    return found


def _meet(edges: dict[int, list[Edge]], reached: dict[int, set[int]], p: int, q: int) -> bool:
    """Return whether one text leads from p to p, from p to q, and from q to q."""

    @cache
    def steps(state: int, target: int) -> list[Edge]:
        return [
            (mask, following)
            for mask, following in edges[state]
            if following == target or target in reached[following]
        ]

    waiting = deque([(p, p, q)])
    seen = {(p, p, q)}
    while waiting:
        if len(seen) > MOST_STEPS:
            raise NotLinear("it is too large to be judged")
        a, b, c = waiting.popleft()
        for first, a_next in steps(a, p):
            for second, b_next in steps(b, q):
                if not (both := first & second):
                    continue
                for third, c_next in steps(c, q):
                    following = (a_next, b_next, c_next)
                    if both & third and following == (p, q, q):
                        return True
                    if both & third and following not in seen:
                        seen.add(following)
                        waiting.append(following)
    return False
