"""The messages that are posted to Slack."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.events import Media
from receiver.hooks import slack
from tests.support.hook_servers import notice

PICTURE = Media("image", "https://cdn.example/0.png?a=1&b=2")


def blocks(kind: str, message: dict[str, Any]) -> list[dict[str, Any]]:
    return [block for block in message["blocks"] if block["type"] == kind]


def test_a_message_has_title_facts_and_picture() -> None:
    message = slack.compose(notice(media=(PICTURE,)))
    assert message["text"] == "ORDER-7 succeeded (kling)"
    assert [block["type"] for block in message["blocks"]] == ["header", "section", "image"]
    fields = [field["text"] for field in message["blocks"][1]["fields"]]
    assert fields[:3] == ["*Task*\n0199f1a2", "*Reference*\nORDER-7", "*Provider*\nkling"]
    assert message["blocks"][2] == {
        "type": "image",
        "image_url": "https://cdn.example/0.png?a=1&b=2",
        "alt_text": "Result of task 0199f1a2",
    }


def test_times_are_in_the_time_zone_of_the_recipients() -> None:
    message = slack.compose(replace(notice(), zone=ZoneInfo("Europe/Berlin")))
    fields = [field["text"] for field in message["blocks"][1]["fields"]]
    assert "*Time*\n2025-12-12 07:10:50 CET" in fields


def test_a_failure_contains_the_reason() -> None:
    message = slack.compose(notice("failed", reason="risk control"))
    assert {"type": "mrkdwn", "text": "*Reason*\nrisk control", "verbatim": True} in message[
        "blocks"
    ][1]["fields"]


def test_values_cannot_contain_slack_markup() -> None:
    message = slack.compose(notice("failed", reference="<!channel> & co", reason="<http://x|y>"))
    texts = re.findall(r"'text': '([^']*)'", str(message))
    assert any("&lt;!channel&gt; &amp; co" in text for text in texts)
    assert not any("<" in text or ">" in text for text in texts)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(10, 60))
def test_a_text_is_shortened_to_the_limit_but_never_within_an_escape(text: str, limit: int) -> None:
    cut = slack.escaped(text, limit)
    assert len(cut.encode("utf-16-le")) // 2 <= limit
    assert re.fullmatch(r"(?:[^&<>]|&amp;|&lt;|&gt;)*", cut, re.DOTALL)
    plain = cut.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert plain == text or (plain.endswith("…") and text.startswith(plain[:-1]))


def test_a_message_stays_within_slacks_limits() -> None:
    long = "<" * 10_000
    media = tuple(Media("video", f"https://cdn.example/{n}", str(n)) for n in range(60))
    message = slack.compose(notice("failed", media, reference=long, reason=long))
    assert len(message["blocks"]) <= 50
    assert len(message["blocks"][0]["text"]["text"]) <= 150
    assert len(message["text"]) <= 3000
    fields = message["blocks"][1]["fields"]
    assert len(fields) <= 10
    assert all(len(field["text"]) <= 2000 for field in fields)
    assert any(field["text"].endswith("&lt;…") for field in fields)


def test_facts_beyond_slacks_limit_are_omitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.hooks.wording.facts", lambda _: [("Fact", "x")] * 12)
    assert len(slack.compose(notice())["blocks"][1]["fields"]) == 10


def test_only_pictures_that_slack_can_fetch_become_image_blocks() -> None:
    media = (
        Media("image", "https://cdn.example/" + "x" * 2981),  # 3001
        Media("image", "javascript:alert(1)"),
        Media("image", "data:image/png;base64,AAAA"),
        Media("video", "https://cdn.example/v.mp4?a=1&b=>|x"),
    )
    message = slack.compose(notice(media=media))
    assert blocks("image", message) == []
    links = [block["text"]["text"] for block in blocks("section", message)[1:]]
    assert links == ["<https://cdn.example/v.mp4?a=1&amp;b=%3E%7Cx|video>"]
    exactly = slack.compose(notice(media=(Media("image", "https://cdn.example/" + "x" * 2980),)))
    assert len(blocks("image", exactly)) == 1


@given(st.text(st.characters()), st.text(st.characters()))
def test_a_message_without_blocks_stays_within_slacks_limit_and_contains_no_markup(
    reference: str, reason: str
) -> None:
    media = tuple(
        Media("image", f"https://cdn.example/{n}?" + "&" * 590, str(n)) for n in range(60)
    )
    source = notice("failed", media, reference=f"<!channel>{reference}", reason=reason * 1_000)
    text = slack.compose_text(source)["text"]
    assert len(text) <= 40_000
    assert "<!" not in text
    links = re.findall(r"<([^<>|]*)\|image>", text)
    assert len(links) == 10
    assert re.sub(r"<[^<>]*>", "", text).count("<") == 0


def test_pictures_can_be_omitted() -> None:
    message = slack.compose(notice(media=(PICTURE,)), pictures=False)
    assert blocks("image", message) == []
    assert html.unescape(blocks("section", message)[1]["text"]["text"]) == f"<{PICTURE.url}|image>"
