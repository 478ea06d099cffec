"""The Slack hook with a server that responds as Slack does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from receiver.endpoints import Alert, AlertKind
from receiver.errors import ContentFailure, EndpointGone, PermanentFailure, TemporaryFailure
from receiver.events import Media
from receiver.hooks.slack import Slack
from tests.support.hook_servers import Page, Site, notice

PATH = "/services/T0/B0/S3CRET"
PICTURE = Media("image", "https://cdn.example/0.png")


@pytest.fixture
def slack(site: Site) -> Slack:
    site.pages[PATH] = Page(b"ok")
    return Slack("chat", {"url": site.url + PATH, "allow_private": True})


def test_a_message_is_one_post(site: Site, slack: Slack) -> None:
    assert slack.send(notice(media=(PICTURE,))).answer == "Slack answered 200 ok"
    (request,) = site.requests
    message = json.loads(request.body)
    assert message["text"] == "ORDER-7 succeeded (kling)"
    assert message["blocks"][-1]["image_url"] == PICTURE.url


@pytest.mark.parametrize(
    ("page", "seconds"),
    [
        (Page(b"rate_limited", 429, {"Retry-After": "30"}), 30.0),
        (Page(b"", 503), None),
        (Page(b"rollup_error", 500), None),
    ],
)
def test_a_temporary_error_is_retried(
    site: Site, slack: Slack, page: Page, seconds: float | None
) -> None:
    site.pages[PATH] = page
    with pytest.raises(TemporaryFailure, match=f"Slack answered {page.status}") as caught:
        slack.send(notice())
    assert caught.value.retry_after == seconds


GONE = [
    Page(b"no_service", 404),
    Page(b"no_team", 404),
    Page(b"no_active_hooks", 404),
    Page(b"channel_not_found", 404),
    Page(b"invalid_token", 403),
    Page(b"action_prohibited", 403),
    Page(b"posting_to_general_channel_denied", 403),
    Page(b"team_disabled", 403),
    Page(b"channel_is_archived", 410),
    Page(b"", 410),
    Page(b"user_not_found", 400),
    Page(b'{"ok": false, "error": "no_service"}', 200),
]
ABOUT_THE_MESSAGE = [
    Page(b"invalid_blocks", 400),
    Page(b"invalid_blocks_format", 400),
    Page(b"invalid_attachments", 400),
    Page(b"too_many_attachments", 400),
    Page(b"invalid_payload", 400),
    Page(b"msg_blocks_too_long", 400),
    Page(b"missing_text_or_fallback_or_attachments", 400),
    Page(b"invalid_blocks: downloading image failed [json-pointer:/blocks/2]", 400),
    Page(b"something that Slack has not said before", 400),
    Page(b"", 400),
    Page(b"<html>Request Entity Too Large</html>", 413),
    Page(b"no_text", 500),
    Page(b"invalid_blocks", 404),
    Page(b'{"ok":false,"error":"invalid_blocks"}', 200),
    Page(b'{"ok": false, "error": "invalid_blocks"}', 400),
]


@pytest.mark.parametrize("page", [*GONE, Page(b"", 302, {"Location": "/other"}), Page(b"", 401)])
def test_a_refusal_is_final_and_stored_in_slacks_words(
    site: Site, slack: Slack, page: Page
) -> None:
    site.pages[PATH] = page
    with pytest.raises(PermanentFailure) as caught:
        slack.send(notice(media=(PICTURE,)))
    assert str(caught.value) == f"Slack answered {page.status} {page.body.decode()}"
    assert isinstance(caught.value, EndpointGone) == (page in GONE)
    assert len(site.requests) == 1


def answer_in_turn(site: Site, *pages: Page) -> None:
    """Respond to each request with the next page; the last one is repeated."""
    left = list(pages)

    class InTurn(dict[str, Page]):
        def get(self, path: str, default: Any = None) -> Any:
            return (left.pop(0) if len(left) > 1 else left[0]) if path == PATH else default

    site.pages = InTurn()


@pytest.mark.parametrize("page", ABOUT_THE_MESSAGE)
def test_a_message_whose_blocks_slack_refuses_is_sent_as_text_with_links(
    site: Site, slack: Slack, page: Page
) -> None:
    answer_in_turn(site, page, Page(b"ok"))
    media = (PICTURE, Media("image", "https://cdn.example/1.webp?a=1&b=2", "1"))
    done = slack.send(notice(media=media))
    assert done.answer.startswith("Slack answered 200 ok to the text; it refused the blocks: ")
    first, second = (json.loads(request.body) for request in site.requests)
    assert "blocks" in first
    assert set(second) == {"text"}
    assert second["text"].splitlines()[:3] == [
        "*ORDER-7 succeeded*",
        "Task: 0199f1a2",
        "Reference: ORDER-7",
    ]
    assert second["text"].splitlines()[-2:] == [
        "<https://cdn.example/0.png|image>",
        "<https://cdn.example/1.webp?a=1&amp;b=2|image>",
    ]


@pytest.mark.parametrize("page", ABOUT_THE_MESSAGE)
def test_a_refused_text_does_not_count_against_the_endpoint(
    site: Site, slack: Slack, page: Page
) -> None:
    site.pages[PATH] = page
    with pytest.raises(ContentFailure, match=f"Slack answered {page.status}"):
        slack.send(notice("failed"))
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("page", "family"),
    [
        (Page(b"rate_limited", 429, {"Retry-After": "30"}), TemporaryFailure),
        (Page(b"", 503), TemporaryFailure),
        (Page(b"no_service", 404), EndpointGone),
    ],
)
def test_the_text_version_is_judged_like_any_message(
    site: Site, slack: Slack, page: Page, family: type[Exception]
) -> None:
    answer_in_turn(site, Page(b"invalid_blocks", 400), page)
    with pytest.raises(family):
        slack.send(notice(media=(PICTURE,)))
    assert len(site.requests) == 2


def templated(site: Site, **options: str) -> Slack:
    return Slack("chat", {"url": site.url + PATH, "allow_private": True, **options})


def test_the_text_template_is_sent_if_slack_refuses_the_blocks_template(site: Site) -> None:
    slack = templated(site, text="*{{ task.reference }}*", blocks='[{"text": "{{ id }}"}]')
    answer_in_turn(site, Page(b"invalid_blocks", 400), Page(b"ok"))
    slack.send(notice(media=(PICTURE,)))
    first, second = (json.loads(request.body) for request in site.requests)
    assert first == {"text": "*ORDER-7*", "blocks": [{"text": "0199f1a2:succeeded"}]}
    assert second == {"text": "*ORDER-7*"}


def test_a_blocks_template_has_the_default_text_for_notifications(site: Site) -> None:
    site.pages[PATH] = Page(b"ok")
    templated(site, blocks="[]").send(notice(media=(PICTURE,)))
    message = json.loads(site.requests[0].body)
    assert message == {"text": "ORDER-7 succeeded (kling)", "blocks": []}


def test_a_text_template_without_blocks_is_sent_once(site: Site) -> None:
    answer_in_turn(site, Page(b"no_text", 400), Page(b"ok"))
    with pytest.raises(ContentFailure):
        templated(site, text="{{ task.reason }}").send(notice(media=(PICTURE,)))
    (request,) = site.requests
    assert json.loads(request.body) == {"text": ""}


def test_an_alert_whose_blocks_slack_refuses_is_sent_as_text(site: Site, slack: Slack) -> None:
    answer_in_turn(site, Page(b"invalid_blocks", 400), Page(b"ok"))
    slack.alert(Alert(7, "shop", AlertKind.PAUSED, 1, "500 <b>"))
    message = json.loads(site.requests[1].body)
    assert set(message) == {"text"}
    assert message["text"].startswith('*The hook "shop" is paused')
    assert "500 &lt;b&gt;" in message["text"]


def test_no_error_shows_the_secret_path() -> None:
    for options in ({}, {"allow_private": True}):
        hook = Slack("chat", {"url": f"http://127.0.0.1:1{PATH}", **options})
        with pytest.raises((TemporaryFailure, PermanentFailure)) as caught:
            hook.send(notice())
        assert "S3CRET" not in str(caught.value)
        assert str(caught.value).startswith("http://127.0.0.1:1: ")
