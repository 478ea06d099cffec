"""Finds the regular expressions of a module in its syntax tree, and how each is used."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.syntax_trees import Nodes, nodes_in

# The engines by which an expression could escape the check. `fnmatch` and `glob` are linear: they
# compile each `*` so that the engine never returns to it.
OTHER_ENGINES = frozenset({"re2", "regex", "sre_compile", "sre_parse"})
WHOLE, PREFIX = frozenset({"fullmatch"}), frozenset({"fullmatch", "match"})
USES = frozenset({"compile", "findall", "finditer", "match", "fullmatch", "search", "split"})
USES |= {"sub", "subn"}
Methods = Mapping[str, set[str]]  # by the name on which they are called


@dataclass(frozen=True)
class Use:
    """One expression: its place, its pattern, and how it is applied."""

    place: str
    pattern: str | bytes
    flags: int
    searches: bool
    whole: bool


class NotAConstant(Exception):
    """An expression cannot be evaluated without running the program; the message has its place."""


def uses(path: Path, namespace: Mapping[str, Any], methods: Methods) -> list[Use]:
    """Return the expressions of a module; `methods` has the methods that are called on each name.

    Raises NotAConstant for an expression that is not a constant of the module, and for another
    engine.
    """
    return [*_found(nodes_in(path), path, namespace, methods)]


def methods_called(modules: Iterable[Nodes]) -> dict[str, set[str]]:
    """Return the methods that are called on each name.

    `?` stands for any other use of the name, such as as an argument.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for nodes in modules:
        for name, called in _methods_called(nodes).items():
            found[name] |= called
    return found


def _methods_called(nodes: Nodes) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    called: set[ast.AST] = set()
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = _name(node.func.value)
            if name is not None:
                found[name].add(node.func.attr)
                called.add(node.func.value)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = _name(node)
            if name is not None and node not in called:
                found[name].add("?")
    return found


def _name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def _found(
    nodes: Nodes, path: Path, namespace: Mapping[str, Any], methods: Methods
) -> Iterator[Use]:
    for node in nodes:
        for imported in _imports(node):
            if imported in OTHER_ENGINES or imported.startswith("re as ") or imported == "from re":
                place = f"{path}:{getattr(node, 'lineno', 0)}"
                raise NotAConstant(f"{place}: use `import re`, and no other engine ({imported})")
    calls = [node for node in nodes if isinstance(node, ast.Call) and _uses_expression(node)]
    if not calls:
        return
    own = _methods_called(nodes)
    methods = {**methods, **{name: own[name] for name in own if name.startswith("_")}}
    names = {
        node.value: target.id
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in calls:
        assert isinstance(call.func, ast.Attribute)
        place = f"{path}:{call.lineno}"
        called = {call.func.attr}
        if call.func.attr == "compile":
            called = methods.get(names.get(call, ""), {"?"})
        yield Use(
            place,
            _value(call.args[0], namespace, place),
            _flags(call, namespace, place),
            searches=not called <= PREFIX,
            whole=bool(called - {"search", "match", "sub", "subn", "findall", "finditer"}),
        )


def _uses_expression(call: ast.Call) -> bool:
    return (
        isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "re"
        and call.func.attr in USES
    )


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for one in node.names:
            yield f"{one.name} as {one.asname}" if one.asname else one.name
    if isinstance(node, ast.ImportFrom):
        yield f"from {node.module}" if node.module == "re" else str(node.module)


def _flags(node: ast.Call, namespace: Mapping[str, Any], place: str) -> int:
    assert isinstance(node.func, ast.Attribute)
    position = 3 if node.func.attr in {"sub", "subn", "split"} else 2
    position = 1 if node.func.attr == "compile" else position
    given = [one.value for one in node.keywords if one.arg == "flags"]
    given += node.args[position : position + 1] if node.func.attr not in {"sub", "subn"} else []
    return int(_value(given[0], namespace, place)) if given else 0


def _value(node: ast.expr, namespace: Mapping[str, Any], place: str) -> Any:
    # The brackets tell coverage.py that this is not a file.
    code = compile(ast.Expression(node), f"<{place}>", "eval")
    try:
        value = eval(code, {"re": re, **namespace})  # noqa: S307 - our own source
    except NameError as error:
        raise NotAConstant(
            f"{place}: make the expression a constant of its module: {error}"
        ) from None
    return value
