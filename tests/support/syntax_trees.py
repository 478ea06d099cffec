"""The syntax trees of modules, for tests that search them. A process reads each module once."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path

Nodes = Sequence[ast.AST]  # each node comes after its parent


def nodes_of(source: str) -> Nodes:
    """Return all nodes of a module's syntax tree."""
    return list(ast.walk(ast.parse(source)))


@cache
def nodes_in(path: Path) -> Nodes:
    """Return all nodes of the syntax tree of the module in this file, which no test changes."""
    return nodes_of(path.read_text(encoding="utf-8"))


def docstrings(nodes: Nodes) -> set[ast.AST]:
    """Return the nodes that are docstrings."""
    return {
        node.body[0].value
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
