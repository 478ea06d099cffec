"""The tests wait for conditions: none of them sleeps, has a short limit, or measures a duration."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULES = sorted(str(path.relative_to(TESTS)) for path in TESTS.rglob("*.py"))
POLL = {  # modules that sleep between two looks at a condition
    "support/patience.py",
    "support/debian_packages.py",  # with a shorter limit, after which tests are skipped
    "support/flawed/receivers.py",  # runs in processes of its own
}
SLEEPS = {"time.sleep", "asyncio.sleep", "sleep"}
CLOCKS = {"time.monotonic", "time.perf_counter", "time.time"}
# They give up after a time-out, which has to be PATIENCE.
WAITS = {"acquire", "communicate", "create_connection", "get", "join", "post", "request", "run"}
WAITS |= {"urlopen", "wait"}


def name(node: ast.expr) -> str:
    """A dotted name as it is written; empty for other expressions."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_short(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value > 0


def faults(tree: ast.Module) -> Iterator[str]:
    for call in calls(tree):
        called = name(call.func)
        last = called.rpartition(".")[2]
        if called in SLEEPS and not (called == "asyncio.sleep" and not is_short(call.args[0])):
            yield f"line {call.lineno} sleeps: use wait_until"
        if called == "pytest.mark.timeout":
            yield f"line {call.lineno} has a limit of its own: TEST_PATIENCE sets it for all tests"
        limits = [keyword.value for keyword in call.keywords if keyword.arg == "timeout"]
        limits += call.args[:1] if last in ("wait", "join") else []
        if last in WAITS and any(map(is_short, limits)):
            yield f"line {call.lineno} waits for a fixed time: use PATIENCE"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and measures_time(node.test):
            yield f"line {node.lineno} asserts how long something took"


def measures_time(asserted: ast.expr) -> bool:
    """Does it use the difference of two times? A timestamp may be compared with the clock."""
    differences = (node for node in ast.walk(asserted) if isinstance(node, ast.BinOp))
    return any(
        isinstance(node.op, ast.Sub) and CLOCKS & {name(call.func) for call in calls(node)}
        for node in differences
    )


@pytest.mark.parametrize("module", [m for m in MODULES if m not in POLL])
def test_a_test_waits_for_a_condition(module: str) -> None:
    assert list(faults(ast.parse((TESTS / module).read_text()))) == []


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
    ],
)
def test_a_fixed_time_is_found(line: str) -> None:
    assert list(faults(ast.parse(line)))
