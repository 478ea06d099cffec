"""The alert rules and the Grafana dashboard use only existing metrics with their own labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from receiver.observability import metrics
from receiver.observability.metrics import ALL, MetricType

DOCS = Path(__file__).parents[2] / "docs"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = json.loads((DOCS / "grafana-dashboard.json").read_text())["panels"]
CASES: list[dict[str, Any]] = [
    case
    for name in ("alerts_test.yml", "alerts_after_hours_test.yml")
    for case in yaml.safe_load((Path(__file__).parents[1] / "data" / name).read_text())["tests"]
]
NAME = re.compile(rf"({metrics.PREFIX}\w+)(\{{[^}}]*\}})?")
GROUPED = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


def samples() -> Iterator[tuple[str, set[str]]]:
    """Return each name that can be queried, with its labels."""
    for one in ALL:
        if one.kind is MetricType.HISTOGRAM:
            yield f"{one.family}_bucket", {*one.labels, "le"}
            yield f"{one.family}_sum", set(one.labels)
            yield f"{one.family}_count", set(one.labels)
        else:
            yield one.family, set(one.labels)


KNOWN = dict(samples())
EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in RULES] + [
    (panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]
]


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_queried_metric_exists(title: str, expression: str) -> None:
    found = NAME.findall(expression)
    assert found or expression.startswith("up{"), title
    grouped = {
        label.strip() for labels in GROUPED.findall(expression) for label in labels.split(",")
    }
    for name, selector in found:
        assert name in KNOWN
        assert set(re.findall(r"(\w+)\s*=", selector)) <= KNOWN[name]
        assert grouped <= KNOWN[name]
    assert expression.count("(") == expression.count(")")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_states_the_problem_and_its_severity(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "warn")
    shown = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
    names = [name for name, _ in NAME.findall(rule["expr"])]
    assert all(label in KNOWN[name] for label in shown for name in names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_test_case_in_which_it_fires_and_one_in_which_it_does_not(
    rule: dict[str, Any],
) -> None:
    """The cases are in files of tests/data, which promtool runs."""
    alert, names = rule["alert"], {name for name, _ in NAME.findall(rule["expr"])}
    tests = [test for test in CASES if test["name"].split(":")[0] == alert]
    given = " ".join(series["series"] for test in tests for series in test["input_series"])
    assert all(name in given for name in names)
    cases = [
        case for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert
    ]
    assert {bool(case.get("exp_alerts")) for case in cases} == {True, False}


def test_every_metric_has_a_panel() -> None:
    queried = {name for _, expression in EXPRESSIONS for name, _ in NAME.findall(expression)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in queried}
    assert families == {one.family for one in ALL}


def test_no_two_panels_overlap() -> None:
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in PANELS
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
