"""`/metrics` of any web process shows the counts of the whole installation."""

from __future__ import annotations

import json
import re
from typing import Any

import requests

from sandbox.server import Sandbox
from tests.support.installation import ROOT, Installation
from tests.support.patience import PATIENCE

TOKEN = "a-token-for-the-tests"
PERSON = str(ROOT / "sandbox/images/person.jpg")
GARMENT = str(ROOT / "sandbox/images/garment.png")
SAMPLE = re.compile(r"^callback_receiver_(\S+) (\S+)$", re.MULTILINE)
HOOKS = ("pictures", "mail", "slack")
WANTED = {
    'callbacks_total{outcome="recorded",provider="kling",status="succeeded"}': 1,  # by web
    'callbacks_missed_total{provider="kling"}': 1,  # by the poller
    'questions_total{provider="kling",result="moved"}': 1,
    'downloads_total{hook="pictures"}': 2,  # by the worker
    **{f'delivery_attempts_total{{hook="{hook}",outcome="delivered"}}': 2 for hook in HOOKS},
    "deliveries_due": 0,
    'tasks_open{provider="kling"}': 0,
}


def scraped(installation: Installation) -> dict[str, float]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = requests.get(f"{installation.url}/metrics", headers=headers, timeout=PATIENCE)
    assert answer.status_code == 200
    return {name: float(value) for name, value in SAMPLE.findall(answer.text)}


def test_metrics_include_every_process_and_no_counter_decreases(
    installation: Installation, sandbox: Sandbox
) -> None:
    installation.environment |= {"API_TOKEN": TOKEN, "RECONCILE_AFTER": "2"}
    installation.start("serve", "receiver", "serve", "--bind", f"127.0.0.1:{installation.port}")
    installation.wait_until_ready()
    command = ("submitter", "submit", "--human", PERSON, "--cloth", GARMENT, "--wait")
    assert installation.run(*command).returncode == 0
    sandbox.next("kling", "dropped")
    assert installation.run(*command).returncode == 0
    latest: dict[str, float] = {}

    def is_complete() -> bool:
        """Each request may be handled by either of two processes."""
        found = scraped(installation)
        back = [
            name
            for name, value in latest.items()
            if "_total" in name and found.get(name, 0) < value
        ]
        assert back == []
        latest.update(found)
        return all(found.get(name, -1) >= value for name, value in WANTED.items())

    installation.wait_until(is_complete)
    for process in ("web", "worker", "poller"):
        assert latest[f'process_seen_timestamp_seconds{{process="{process}"}}'] > 0
    assert latest["store_writable"] == 1
    assert installation.stop("serve") == 0
    check_lines((installation.folder / "serve.log").read_text().splitlines())


def check_lines(lines: list[str]) -> None:
    """Each log line of each process is a JSON document that names its subject."""
    found = [json.loads(line) for line in lines]
    assert all({"event", "level", "timestamp"} <= set(line) for line in found)
    by_event: dict[str, list[dict[str, Any]]] = {}
    for line in found:
        by_event.setdefault(line["event"], []).append(line)
    assert all({"request_id", "task"} <= set(line) for line in by_event["request"])
    assert len({line["request_id"] for line in by_event["request"]}) == len(by_event["request"])
    assert all({"delivery", "task", "hook"} <= set(line) for line in by_event["delivered"])
    assert all({"task", "provider"} <= set(line) for line in by_event["queried"])
    loggers = {line.get("logger") for line in found if line["event"].startswith("Booting worker")}
    assert loggers == {"gunicorn.error"}
