"""Every regular expression of the product takes linear time for every text.

The check analyses the structure of each expression (tests/support/expressions.py), so that a new
one is checked without being listed. docs/adr/0015-linear-expressions.md gives the reasons.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.expression_uses import NotAConstant, Use, methods_called, uses
from tests.support.expressions import NotLinear, check
from tests.support.syntax_trees import nodes_in, nodes_of

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for package in ("receiver", "submitter", "sandbox")
    for path in (ROOT / package).rglob("*.py")
)
OTHERS = [ROOT / "wsgi.py", ROOT / "gunicorn.conf.py"]  # they are executed, not imported


@cache
def methods() -> dict[str, set[str]]:
    return methods_called(map(nodes_in, SOURCES))


def expressions(path: Path) -> list[Use]:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    is_used = "import re\n" in path.read_text(encoding="utf-8")
    namespace = vars(importlib.import_module(name)) if is_used else {}
    return uses(path, namespace, methods())


def found_in(tmp_path: Path, source: str, namespace: dict[str, Any] | None = None) -> list[Use]:
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    return uses(path, namespace or {}, methods_called([nodes_of(source)]))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_expression_takes_linear_time(path: Path) -> None:
    for use in expressions(path):
        try:
            check(use.pattern, use.flags, searches=use.searches, whole=use.whole)
        except NotLinear as error:
            pytest.fail(f"{use.place}: {use.pattern!r}: {error}")


def test_executed_files_use_no_expressions() -> None:
    for path in OTHERS:
        assert uses(path, {}, {}) == []


def test_the_check_finds_the_expressions_of_a_module() -> None:
    assert len(expressions(ROOT / "receiver" / "text" / "display.py")) >= 8


@pytest.mark.parametrize(
    "pattern",
    [
        r"x*y",
        r"[a-z]+@",
        r"\s+$",
        r" +\Z",
        r"a+a+b",
        r"(?:a*)*b",
        r"(?:a+)+b",
        r"(?:a|a)*b",
        r"(?:a|aa)*b",
        r"(?:a|b|ab)*c",
        r"(?:a?b?)*c",
        r"(?=a*b)c",
        r"(?!.*b)c",
        r".*x.*y",
        r"(a)\1",
        r"a*+b",
        r"(?>a*)b",
        r"(?i:K+)\u212a",
        r"\w+\d+!",
        r"(?s:.+)\Z",
        r"<[^>]*>",
        r"https?://\S+\.png",
        r"callbacks(?:/+[^/]*)+/+x",
        r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*",
        r"(?<!\\)(?:\\\\)*\\u0000",
        rb"\d+x",
    ],
)
def test_an_expression_that_can_be_slow_is_found(pattern: str | bytes) -> None:
    with pytest.raises(NotLinear):
        check(pattern, searches=True)


@pytest.mark.parametrize(
    "pattern", [r"\s*x\s*y?\s*", r"(.*)-(.*)-(.*)", r"(\d+)*x", r"[a-z]*.[a-z]*<x>"]
)
def test_an_expression_that_is_slow_from_its_start_is_found(pattern: str) -> None:
    with pytest.raises(NotLinear):
        check(pattern, searches=False, whole=True)


@pytest.mark.parametrize(
    "pattern",
    [
        r"abc",
        r"[a-z]+",
        r"\?[^?]*=",
        r"x{1,30}y",
        r"\A\s*x",
        r"(?<=a)b{3,9}(?!c)",
        r"\[[^\[\]]*\]",
        r"://[^\s/@]+(?=@)",
        r"(?:ab|ac)+d?",
    ],
)
def test_a_linear_expression_passes(pattern: str) -> None:
    check(pattern, searches=not pattern.startswith("(?:ab"))


@pytest.mark.parametrize(
    "source",
    [
        "from re import compile\n",
        "import re as other\n",
        "import regex\n",
        "import sre_parse\n",
        "import re\ndef of(pattern: str) -> object:\n    return re.compile(pattern)\n",
        "import re\ndef of(words: list[str]) -> str:\n    return re.sub(words[0], '', 'x')\n",
    ],
)
def test_an_expression_that_cannot_be_analysed_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(NotAConstant):
        found_in(tmp_path, source)


def test_the_function_that_uses_an_expression_decides_where_a_match_may_begin(
    tmp_path: Path,
) -> None:
    source = (
        "import re\nA = re.compile('a*b')\nB = re.compile('a*b')\nC = re.compile('a*b')\n"
        "A.fullmatch('x')\nB.match('x')\nB.sub('', 'x')\nprint(C)\nre.fullmatch('a*b', 'x')\n"
    )
    found = found_in(tmp_path, source)
    assert [use.searches for use in found] == [False, True, True, False]
