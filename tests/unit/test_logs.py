"""Logs are structured, and show no secret."""

from __future__ import annotations

import json

import pytest
import structlog

from receiver import logs


def test_a_traceback_shows_no_local_variable(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    token = "canary-" + "token"
    try:
        int(f"a mistake of {len(token)} letters")
    except ValueError:
        structlog.get_logger().exception("broke", task="task-1")
    line = capsys.readouterr().err
    document = json.loads(line)
    assert (document["event"], document["task"], document["level"]) == ("broke", "task-1", "error")
    assert "a mistake of 12 letters" in line
    assert "canary" not in line
