"""Webhooks in the CloudEvents format, parsed according to the specification."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import pytest

from receiver.endpoints import Alert, AlertKind
from receiver.errors import SettingsError
from receiver.events import Media
from receiver.hooks import cloudevents
from receiver.hooks.webhook import Webhook
from receiver.signing.standard_webhooks import verify
from tests.support.hook_servers import Page, Site, notice

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
FORMATS = ["cloudevents", "cloudevents-binary"]
REQUIRED = {"specversion", "id", "source", "type"}
NAME = re.compile(r"[a-z0-9]{1,20}")
ALERT = Alert(7, "mail", AlertKind.PAUSED, 1_765_519_851_000, "503")
MEDIA = (Media("image", "https://cdn.example/0.png"),)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.pages["/"] = Page(b"ok")
        yield site


def hook(site: Site, format_: str, **more: Any) -> Webhook:
    options = {"url": f"{site.url}/", "secrets": [SECRET], "allow_private": True, **more}
    return Webhook("bus", {**options, "format": format_})


def received(site: Site) -> tuple[dict[str, str], Any]:
    """Return the attributes and the data of the event, in whichever mode it was sent."""
    (request,) = site.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    verify([SECRET], headers, request.body, time.time())
    if headers["content-type"].startswith("application/cloudevents"):
        assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
        assert not any(name.startswith("ce-") for name in headers)
        attributes = json.loads(request.body)
        data = attributes.pop("data")
    else:
        assert "ce-datacontenttype" not in headers
        attributes = {
            name.removeprefix("ce-"): unquote(value, errors="strict")
            for name, value in headers.items()
            if name.startswith("ce-")
        }
        attributes["datacontenttype"] = headers["content-type"]
        data = json.loads(request.body)
    assert attributes["id"] == headers["webhook-id"]
    assert attributes.keys() >= REQUIRED
    assert all(NAME.fullmatch(name) for name in attributes)
    assert all(isinstance(value, str) and value for value in attributes.values())
    return attributes, data


@pytest.mark.parametrize("format_", FORMATS)
def test_an_event_is_a_cloudevent_in_both_modes(site: Site, format_: str) -> None:
    about = notice(media=MEDIA)
    hook(site, format_, source="https://callbacks.shop.example").send(about)
    attributes, data = received(site)
    assert data == about.as_json()
    assert attributes == {
        "specversion": "1.0",
        "id": "0199f1a2:succeeded",
        "source": "https://callbacks.shop.example",
        "type": "task.succeeded",
        "subject": "0199f1a2",
        "time": "2025-12-12T06:10:50.000Z",
        "datacontenttype": "application/json",
    }
    assert datetime.fromisoformat(attributes["time"]).tzinfo is not None


@pytest.mark.parametrize("format_", FORMATS)
def test_an_alert_is_a_cloudevent_as_well(site: Site, format_: str) -> None:
    hook(site, format_).alert(ALERT)
    attributes, data = received(site)
    assert attributes["id"] == data["id"] == "alert:7"
    assert attributes["type"] == "endpoint.paused"
    assert attributes["subject"] == data["hook"] == "mail"
    assert attributes["source"] == "/callback-receiver"


def test_any_attribute_is_transported_in_a_header() -> None:
    identifier = 'a b%20"é🧥'
    attributes = cloudevents.envelope(
        {"id": "1", "type": "t", "occurred_at": "x"}, identifier, None
    )
    headers = cloudevents.headers(attributes)
    assert headers["ce-subject"] == "a%20b%2520%22%C3%A9%F0%9F%A7%A5"
    assert headers["ce-source"] == "/callback-receiver"
    assert unquote(headers["ce-subject"]) == identifier


@pytest.mark.parametrize("format_", FORMATS)
def test_additional_headers_are_sent_with_every_format(site: Site, format_: str) -> None:
    headers = {"Authorization": "Bearer x", "X-Order": "{{ task.reference }}"}
    hook(site, format_, headers=headers).send(notice())
    received(site)
    assert site.requests[0].headers["Authorization"] == "Bearer x"
    assert site.requests[0].headers["X-Order"] == "ORDER-7"


def test_an_alert_has_only_the_constant_headers(site: Site) -> None:
    headers = {"Authorization": "Bearer x", "X-Order": "{{ task.reference }}"}
    own = {"headers": headers, "body": "{{ task.id }}", "content_type": "text/plain"}
    hook(site, "event", **own).alert(ALERT)
    (request,) = site.requests
    assert request.headers["Authorization"] == "Bearer x"
    assert "X-Order" not in request.headers
    assert json.loads(request.body)["type"] == "endpoint.paused"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"format": "cloudevents-2"}, "format: use event, cloudevents or cloudevents-binary"),
        ({"format": "cloudevents", "body": "x"}, "body: cannot be used with this format"),
        ({"content_type": "text/plain"}, "content_type: requires body"),
        ({"source": "https://a.example"}, 'source: requires format = "cloudevents"'),
        ({"format": "cloudevents", "source": "a b"}, "source: is not a URI; use one like "),
        ({"format": "cloudevents", "source": ""}, "source: is not a URI; use one like "),
        ({"format": "cloudevents", "source": "/a%2"}, "source: is not a URI; use one like "),
        ({"headers": {"X-A": "a", "x-a": "b"}}, 'headers: "x-a" is given twice'),
        ({"headers": {"Content-Type": "a"}}, 'headers: "Content-Type" is set by the option'),
        ({"headers": {"Webhook-Id": "a"}}, 'headers: "Webhook-Id" is set by the hook itself'),
        ({"headers": {"ce-id": "a"}}, 'headers: "ce-id" is set by the hook itself'),
        ({"headers": {"Host": "a"}}, 'headers: "Host" is set by the hook itself'),
        ({"headers": {"a b": "a"}}, 'headers: "a b" is not the name of a header'),
        ({"headers": {"a": "x\ny"}}, "headers.a: contains a line break"),
        ({"headers": {"a": 7}}, "headers.a: is not a string; write it in quotes"),
        ({"body": "[1"}, "body: is not JSON: Expecting ',' delimiter at line 1, column 3"),
        ({"body": "{{ task.refrence }}"}, "body: line 1: task.refrence is not a field"),
    ],
)
def test_a_wrong_option_is_reported(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Webhook("bus", {"url": "https://a.example/", "secrets": [SECRET], **options})
    (line,) = caught.value.problems
    assert line.startswith(problem)
