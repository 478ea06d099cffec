"""Checks the limits on the shape of the code: `make shape`.

It prints a table and returns 1 if a limit is exceeded. `--calls` also lists the functions that a
callback and a delivery run through.
"""

from __future__ import annotations

import ast
import io
import sys
import tempfile
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grimp

from tests.support.call_paths import CallPath, measure

ROOT = Path(__file__).parents[2]
PACKAGES = ("receiver", "submitter", "sandbox")
MOST_LOOSE_MODULES = 8
# Lines of code at commit 26c0c6c, before the code was put into packages.
BASELINE = {"receiver": 19_931, "submitter": 3_461, "sandbox": 3_709}
# Lines that features have added since: .env files and `receiver init`, media and metadata in the
# API, the accessible dashboard, kept connections, deliveries in batches, copying with COPY, the
# sandbox's other calls; and (about 4,000) filters, templates, limits, queues, chains and streams,
# with the number of their listeners (30); and checks of what Python programs pass to `submit` (30).
# A new feature is added here, so that the rest does not grow unnoticed.
FEATURES = {"receiver": 5_935, "submitter": 345, "sandbox": 210}
OPTIONS_CLASS = "Meta"  # the inner class that marshmallow requires by this name
NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def loose_modules(package: str) -> list[str]:
    """Return the modules directly in the package."""
    found = (ROOT / package).glob("*.py")
    return sorted(path.stem for path in found if path.name != "__init__.py")


def repeated_classes(package: str) -> dict[str, list[str]]:
    """Return the class names that are defined more than once, with their modules."""
    places = defaultdict(list)
    for path in _sources(package):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ClassDef) and node.name != OPTIONS_CLASS:
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def import_cycles() -> list[list[str]]:
    """Return the groups of modules that import each other, even if only for their types."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    return sorted(sorted(group) for group in _strongly_connected(imports) if len(group) > 1)


def _strongly_connected(successors: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield the strongly connected components of a graph (Tarjan's algorithm)."""
    indices: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        indices[node] = lowest[node] = len(indices)
        stack.append(node)
        for successor in sorted(successors[node]):
            if successor not in indices:
                yield from visit(successor)
                lowest[node] = min(lowest[node], lowest[successor])
            elif successor in stack:
                lowest[node] = min(lowest[node], indices[successor])
        if lowest[node] == indices[node]:
            start = stack.index(node)
            yield stack[start:]
            del stack[start:]

    for node in sorted(successors):
        if node not in indices:
            yield from visit(node)


def structure_problems() -> list[str]:
    """Return the violations in modules, classes and imports."""
    modules = loose_modules("receiver")
    problems = []
    if len(modules) > MOST_LOOSE_MODULES:
        found = ", ".join(modules)
        problems.append(f"receiver has {len(modules)} loose modules: {found}")
    for package in PACKAGES:
        for name, places in repeated_classes(package).items():
            problems.append(f"the class name {name} is repeated: {', '.join(places)}")
    return problems + [f"import cycle: {', '.join(cycle)}" for cycle in import_cycles()]


def lines_of_code(package: str) -> int:
    """Return the number of lines without blank lines, comments and docstrings."""
    return sum(len(_code_lines(path.read_text())) for path in _sources(package))


def _code_lines(source: str) -> set[int]:
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstrings


def _sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def _print_calls(path: CallPath) -> None:
    print(f"\n{path.name}")
    for file in sorted(path.files):
        names = sorted(function.name for function in path.functions if function.file == file)
        print(f"  {file}: {', '.join(names)}")


def main(*options: str) -> int:
    """Print how the code compares with each limit. Returns 1 if a limit is exceeded."""
    with tempfile.TemporaryDirectory() as folder:
        paths = measure(Path(folder))
    lines = {package: lines_of_code(package) for package in PACKAGES}
    limits = {package: BASELINE[package] + FEATURES[package] for package in PACKAGES}
    total, most = sum(lines.values()), sum(limits.values())
    _print_table(
        [
            ("", "files", "limit", "functions", "limit", "of all threads"),
            *(
                (
                    path.name,
                    str(len(path.files)),
                    str(path.file_limit),
                    str(len(path.functions)),
                    str(path.function_limit),
                    str(len(path.of_all_threads)),
                )
                for path in paths
            ),
        ]
    )
    print()
    _print_table(
        [
            ("lines of code", "now", "before", "features since", "limit"),
            *(
                (name, *(str(column[name]) for column in (lines, BASELINE, FEATURES, limits)))
                for name in PACKAGES
            ),
            (
                "all",
                str(total),
                str(sum(BASELINE.values())),
                str(sum(FEATURES.values())),
                str(most),
            ),
        ]
    )
    if "--calls" in options:
        for path in paths:
            _print_calls(path)
    problems = [problem for path in paths for problem in path.problems] + structure_problems()
    if total > most:
        problems.append(f"{total} lines of code, limit {most}")
    print()
    for problem in problems:
        print(f"Problem: {problem}")
    if not problems:
        print("All limits are met.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
