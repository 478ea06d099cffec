"""Logs are structured, and show no secret."""

from __future__ import annotations

import json

import pytest
import structlog

from receiver import logs
from receiver.signing import mint
from samples import SECRET


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


def test_a_secret_that_slips_into_a_line_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    token = mint(SECRET, "kling", "task-1")
    try:
        int(f"https://a.example/0.png?Signature={token}")
    except ValueError as error:
        structlog.get_logger().exception(
            "broke",
            url=f"https://shop.example/callbacks/kling/task-1/{token}",
            nested={"headers": [("X-Original-URI", f"/callbacks/kling/task-1/{token}")]},
            unusual=error,
            header="Bearer canarycanary",
        )
    line = capsys.readouterr().err
    assert json.loads(line)["url"] == "https://shop.example/callbacks/kling/task-1/…"
    assert token not in line
    assert "canary" not in line
