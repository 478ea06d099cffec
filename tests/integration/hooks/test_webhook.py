"""The webhook hook with a real server: signatures, event ids, and every status."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from receiver.errors import (
    BadSignature,
    ContentFailure,
    EndpointGone,
    PermanentFailure,
    SettingsError,
    TemporaryFailure,
)
from receiver.events import Media
from receiver.hooks.webhook import Webhook
from receiver.signing.standard_webhooks import verify
from tests.support.hook_servers import Page, Site, notice

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
OTHER = "whsec_" + base64.b64encode(b"another secret of 24 b..").decode()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        made.pages["/hook"] = Page(b"thanks")
        yield made


def hook(site: Site, **more: Any) -> Webhook:
    options = {"url": f"{site.url}/hook", "secrets": [SECRET], "allow_private": True, **more}
    return Webhook("crm", options)


def test_the_event_arrives_signed(site: Site) -> None:
    told = notice(media=(Media("image", "https://cdn.example/0.png"),))
    done = hook(site).send(told)
    assert done.answer == f"{site.url} answered 200 thanks"
    (request,) = site.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    verify([SECRET], headers, request.body, time.time())
    with pytest.raises(BadSignature):
        verify([SECRET], headers, request.body + b" ", time.time())
    assert json.loads(request.body) == told.as_json()
    assert headers["webhook-id"] == told.id == "0199f1a2:succeeded"
    assert headers["content-type"] == "application/json"


def test_both_secrets_sign_during_a_rotation(site: Site) -> None:
    hook(site, secrets=[OTHER, SECRET]).send(notice())
    headers = {name.lower(): value for name, value in site.requests[0].headers.items()}
    for secret in (SECRET, OTHER):
        verify([secret], headers, site.requests[0].body, time.time())


def test_every_attempt_has_the_same_id_and_its_own_timestamp(site: Site) -> None:
    site.pages["/hook"] = Page(b"later", 500)
    for _ in range(2):
        with pytest.raises(TemporaryFailure):
            hook(site).send(notice())
    ids = {request.headers["webhook-id"] for request in site.requests}
    assert ids == {"0199f1a2:succeeded"}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 507, 520, 599])
def test_temporary_errors_are_retried_and_retry_after_is_obeyed(site: Site, status: int) -> None:
    site.pages["/hook"] = Page(b"later", status, {"Retry-After": "77"})
    with pytest.raises(TemporaryFailure) as failed:
        hook(site).send(notice())
    assert failed.value.retry_after == 77


@pytest.mark.parametrize(
    "status",
    [102, 199, 600, 999, *sorted({*range(300, 309), *range(400, 430), 451} - {408, 410, 425, 429})],
)
def test_every_other_status_is_retried_and_does_not_count_against_the_endpoint(
    site: Site, status: int
) -> None:
    site.pages["/hook"] = Page(b"no", status, {"Location": f"{site.url}/elsewhere"})
    with pytest.raises(ContentFailure, match=str(status)) as failed:
        hook(site).send(notice())
    assert failed.value.retry_after is None
    assert [request.path for request in site.requests] == ["/hook"]  # no redirect is followed


@pytest.mark.parametrize("status", [302, 404, 409, 403])
def test_retry_after_is_obeyed_with_any_status(site: Site, status: int) -> None:
    site.pages["/hook"] = Page(b"", status, {"Retry-After": "77"})
    with pytest.raises(ContentFailure) as failed:
        hook(site).send(notice())
    assert failed.value.retry_after == 77


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_every_2xx_is_success(site: Site, status: int) -> None:
    site.pages["/hook"] = Page(b"", status)
    assert hook(site).send(notice()).answer == f"{site.url} answered {status}"


def test_gone_disables_the_endpoint(site: Site) -> None:
    site.pages["/hook"] = Page(b"no more", 410)
    with pytest.raises(EndpointGone):
        hook(site).send(notice())
    site.pages["/hook"] = Page(b"not here", 404)
    with pytest.raises(ContentFailure):
        hook(site).send(notice())


def test_only_the_beginning_of_a_response_is_stored(site: Site) -> None:
    site.pages["/hook"] = Page(b"x" * 1_000_000)
    assert len(hook(site).send(notice()).answer) < 2_200


def test_the_text_of_an_error_page_is_stored_without_its_markup(site: Site) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>It is down</h1></body>"
    site.pages["/hook"] = Page(page, 502)
    with pytest.raises(TemporaryFailure) as caught:
        hook(site).send(notice())
    assert str(caught.value) == f"{site.url} answered 502 502 Bad Gateway: It is down"


def test_a_private_address_has_to_be_allowed(site: Site) -> None:
    with pytest.raises(PermanentFailure):
        hook(site, allow_private=False).send(notice())
    assert site.requests == []


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"secrets": []}, "secrets: give one"),
        ({"secrets": [SECRET] * 3}, "secrets: give one"),
        ({"secrets": ["whsec_"]}, "secrets: is empty"),
        ({"secrets": ["!!!"]}, "secrets: is not whsec_"),
        ({"secrets": ["whsec_AA"]}, "secrets: is too short: it has 1 bytes after decoding"),
        ({"secrets": [SECRET, "whsec_c2hvcnQ="]}, "receiver hooks secret"),
        ({"url": "ftp://a"}, "url: is not a URL"),
        ({"sekret": "x"}, "sekret: is not an option"),
    ],
)
def test_an_invalid_key_is_named_and_no_secret_is_shown(
    site: Site, options: dict[str, Any], names: str
) -> None:
    with pytest.raises(SettingsError) as wrong:
        hook(site, **options)
    assert names in " ".join(wrong.value.problems)
    assert SECRET not in " ".join(wrong.value.problems)
