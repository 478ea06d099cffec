"""Prometheus accepts docs/alerts.yml, and its alerts fire only when they should."""

from __future__ import annotations

from tests.support.clean_venv import ROOT
from tests.support.real_servers import place


def test_prometheus_accepts_the_alerts() -> None:
    with place("promtool") as promtool:
        rules = promtool.write("alerts.yml", (ROOT / "docs/alerts.yml").read_text())
        done = promtool.run("check", "rules", rules)
        assert (done.returncode, done.stderr) == (0, "")
        assert "SUCCESS: 16 rules found" in done.stdout


def test_alerts_fire_when_they_should_and_not_before() -> None:
    with place("promtool") as promtool:
        promtool.write("alerts.yml", (ROOT / "docs/alerts.yml").read_text())
        tests = []
        for name in ("alerts_test.yml", "alerts_after_hours_test.yml"):
            text = (ROOT / "tests/data" / name).read_text()
            tests.append(promtool.write(name, text.replace("../../docs/", "")))
        done = promtool.run("test", "rules", *tests)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("SUCCESS") == len(tests)
