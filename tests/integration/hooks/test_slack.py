"""The Slack hook against a server that answers as Slack does."""

from __future__ import annotations

import json

import pytest

from receiver.errors import PermanentFailure, TemporaryFailure
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
def test_trouble_that_passes_is_tried_again(
    site: Site, slack: Slack, page: Page, seconds: float | None
) -> None:
    site.pages[PATH] = page
    with pytest.raises(TemporaryFailure, match=f"Slack answered {page.status}") as caught:
        slack.send(notice())
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    "page",
    [
        Page(b"no_service", 404),
        Page(b"invalid_token", 403),
        Page(b"channel_is_archived", 410),
        Page(b"invalid_payload", 400),
        Page(b"invalid_blocks", 400),  # and there is no picture in it
        Page(b"", 302, {"Location": "/other"}),
    ],
)
def test_a_refusal_is_final_and_kept_in_slacks_words(site: Site, slack: Slack, page: Page) -> None:
    site.pages[PATH] = page
    with pytest.raises(PermanentFailure) as caught:
        slack.send(notice("failed"))
    assert str(caught.value) == f"Slack answered {page.status} {page.body.decode()}"


def test_a_picture_that_slack_cannot_fetch_is_tried_again_and_explained(
    site: Site, slack: Slack
) -> None:
    site.pages[PATH] = Page(b"invalid_blocks", 400)
    with pytest.raises(TemporaryFailure, match="unable to fetch the picture; pictures = false"):
        slack.send(notice(media=(PICTURE,)))
    assert len(site.requests) == 1


def test_no_error_shows_the_secret_path() -> None:
    for options in ({}, {"allow_private": True}):
        hook = Slack("chat", {"url": f"http://127.0.0.1:1{PATH}", **options})
        with pytest.raises((TemporaryFailure, PermanentFailure)) as caught:
            hook.send(notice())
        assert "S3CRET" not in str(caught.value)
        assert str(caught.value).startswith("http://127.0.0.1:1: ")
