"""The sandbox enforces the limits of Slack."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.inboxes import slack
from sandbox.inboxes.slack import SlackRefusalError

DIVIDER = {"type": "divider"}


def section(text: str, kind: str = "mrkdwn", **more: Any) -> dict[str, Any]:
    return {"type": "section", "text": {"type": kind, "text": text}, **more}


def header(text: str, kind: str = "plain_text") -> dict[str, Any]:
    return {"type": "header", "text": {"type": kind, "text": text}}


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image", "image_url": url, "alt_text": "a picture", **more}


@pytest.mark.parametrize(
    "payload",
    [
        {"text": "hello"},
        {"blocks": [DIVIDER]},
        {"text": "x", "blocks": [section("a" * 3_000), header("b" * 150)]},
        {"blocks": [DIVIDER] * 50},
        {"blocks": [image("https://x.example/" + "c" * 2_982)]},
        {"blocks": [{"type": "section", "fields": [{"type": "mrkdwn", "text": "f"}] * 10}]},
        {"blocks": [section("a", accessory=image("https://x.example/1.png"))]},
        {"blocks": [{"type": "context", "elements": [{"type": "mrkdwn", "text": "f"}]}]},
    ],
)
def test_a_payload_within_the_limits_is_accepted_unchanged(payload: dict[str, Any]) -> None:
    assert slack.read(json.dumps(payload).encode()) == payload


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        ({}, "no_text"),
        ({"text": ""}, "no_text"),
        ({"text": 7}, "invalid_payload"),
        ([], "invalid_payload"),
        ("text", "invalid_payload"),
        ({"text": "x" * 40_001}, "msg_too_long"),
        ({"blocks": [DIVIDER] * 51}, "invalid_blocks"),
        ({"blocks": {"type": "divider"}}, "invalid_blocks"),
        ({"blocks": ["divider"]}, "invalid_blocks"),
        ({"blocks": [{"type": "marquee"}]}, "invalid_blocks"),
        ({"blocks": [section("a" * 3_001)]}, "invalid_blocks"),
        ({"blocks": [section("")]}, "invalid_blocks"),
        ({"blocks": [{"type": "section"}]}, "invalid_blocks"),
        ({"blocks": [header("b" * 151)]}, "invalid_blocks"),
        ({"blocks": [header("b", "mrkdwn")]}, "invalid_blocks"),
        ({"blocks": [image("https://x.example/" + "c" * 2_983)]}, "invalid_blocks"),
        ({"blocks": [image("https://x.example/", alt_text="")]}, "invalid_blocks"),
        ({"blocks": [section("a", accessory=image(""))]}, "invalid_blocks"),
        ({"blocks": [{"type": "context", "elements": []}]}, "invalid_blocks"),
    ],
)
def test_a_payload_beyond_the_limits_gets_slacks_response(payload: Any, answer: str) -> None:
    with pytest.raises(SlackRefusalError) as refused:
        slack.read(json.dumps(payload).encode())
    assert str(refused.value) == answer


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"payload=%7B%7D"])
def test_a_payload_that_is_not_json_is_invalid(body: bytes) -> None:
    with pytest.raises(SlackRefusalError, match="invalid_payload"):
        slack.read(body)
