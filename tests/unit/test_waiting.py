"""Tests wait for conditions: no test sleeps, has a short limit, or measures a duration."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

import pytest

from tests.support.syntax_trees import nodes_of

TESTS = Path(__file__).parents[1]
MODULES = sorted(str(path.relative_to(TESTS)) for path in TESTS.rglob("*.py"))
POLL = {  # modules that sleep between two checks of a condition
    "support/patience.py",
    "support/fetch_cache.py",  # with a shorter limit, after which tests are skipped
    "support/flawed/receivers.py",  # runs in its own processes
}
SLEEPS = {"time.sleep", "asyncio.sleep", "gevent.sleep", "eventlet.sleep"}
STOPWATCHES = {"time.monotonic", "time.perf_counter"}
CLOCKS = STOPWATCHES | {"time.time"}
# The position of the argument that is the limit, for functions whose limit has no default name.
POSITIONS = {"wait": 0, "join": 0, "result": 0, "settimeout": 0, "set_default_timeout": 0}
POSITIONS |= {"set_default_navigation_timeout": 0, "alarm": 0, "wait_for": 1}
# Our functions with a limit that the test chooses; the time is simulated, so no test waits.
SIMULATED = {"follow"}


def name(node: ast.expr) -> str:
    """Return a dotted name as it is written, `?.name` for an attribute of another expression.

    Other expressions have no name: an empty string.
    """
    if isinstance(node, ast.Attribute):
        return f"{name(node.value) or '?'}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(nodes: Iterable[ast.AST]) -> list[ast.Call]:
    return [node for node in nodes if isinstance(node, ast.Call)]


def is_fixed(node: ast.expr) -> bool:
    """Return whether the node is a positive number, a tuple of them, or a constant calculation."""
    if isinstance(node, ast.Tuple):
        return any(map(is_fixed, node.elts))
    try:
        return float(eval(ast.unparse(node), {"__builtins__": {}})) > 0  # noqa: S307 - it contains no names
    except (NameError, TypeError, ValueError, AttributeError):
        return False


def limits(call: ast.Call) -> list[ast.expr]:
    """Return the arguments that limit how long the call may take."""
    last = name(call.func).rpartition(".")[2] or getattr(call.func, "attr", "")
    if last in SIMULATED:
        return []
    found = [keyword.value for keyword in call.keywords if keyword.arg == "timeout"]
    position = 0 if name(call.func) == "asyncio.timeout" else POSITIONS.get(last)
    return found if position is None else found + call.args[position : position + 1]


def sleeps(node: ast.AST) -> bool:
    """Return whether it imports, names or calls a function that sleeps.

    A pause of 0 only yields to others.
    """
    if isinstance(node, ast.ImportFrom):
        return any(alias.name == "sleep" for alias in node.names)
    if isinstance(node, ast.Import):
        return any(alias.name == "time" and alias.asname for alias in node.names)
    if isinstance(node, ast.Call):
        return name(node.func) == "sleep"
    return isinstance(node, ast.Attribute) and (
        node.attr == "wait_for_timeout" or name(node) in SLEEPS
    )


def faults(source: str) -> Iterator[str]:
    nodes = nodes_of(source)
    allowed = {
        call.func
        for call in calls(nodes)
        if name(call.func) == "asyncio.sleep" and not is_fixed(call.args[0])
    }
    for node in nodes:
        if sleeps(node) and node not in allowed:
            yield f"line {getattr(node, 'lineno', 0)} sleeps: use wait_until"
    for call in calls(nodes):
        if name(call.func) == "pytest.mark.timeout":
            yield f"line {call.lineno} has its own limit: TEST_PATIENCE sets it for all tests"
        if any(map(is_fixed, limits(call))):
            yield f"line {call.lineno} waits for a fixed time: use PATIENCE"
    if not any(clock in source for clock in CLOCKS):
        return
    durations = {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and measures_time(node.value, STOPWATCHES)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in nodes:
        if isinstance(node, ast.Assert):
            names = {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
            if measures_time(node.test) or names & durations:
                yield f"line {node.lineno} asserts a duration"


def measures_time(asserted: ast.expr, clocks: Set[str] = frozenset(CLOCKS)) -> bool:
    """Return whether it uses the difference of two times.

    A timestamp may be compared with the clock.
    """
    differences = (node for node in ast.walk(asserted) if isinstance(node, ast.BinOp))
    return any(
        isinstance(node.op, ast.Sub)
        and clocks & {name(call.func) for call in calls(ast.walk(node))}
        for node in differences
    )


@pytest.mark.parametrize("module", [m for m in MODULES if m not in POLL])
def test_a_test_waits_for_a_condition(module: str) -> None:
    assert list(faults((TESTS / module).read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "time.sleep(0.1)",
        "stop.wait(0.3)",
        "process.wait(timeout=10)",
        "thread.join(5)",
        "requests.get(url, timeout=5)",
        "subprocess.run(command, timeout=30)",
        "assert time.monotonic() - began < 2",
        "await_(asyncio.sleep(0.2))",
        "pytest.mark.timeout(240)",
        "from time import sleep",
        "import time as t",
        "pause = time.sleep",
        "gevent.sleep(1)",
        "asyncio.wait_for(answer, 3)",
        "asyncio.timeout(3)",
        "condition.wait_for(is_met, timeout=2)",
        "future.result(5)",
        "pool.submit(work).result(5)",
        "future.result(timeout=5)",
        "requests.put(url, timeout=(1, 2))",
        "subprocess.check_output(command, timeout=2 * 60)",
        "as_completed(futures, timeout=2)",
        "HTTPConnection(host, timeout=2)",
        "client.settimeout(2)",
        "page.wait_for_timeout(500)",
        "expect(page).to_have_title(title, timeout=500)",
        "page.set_default_timeout(500)",
        "took = time.monotonic() - began\nassert took < 2",
    ],
)
def test_a_fixed_time_is_found(line: str) -> None:
    assert list(faults(line))
