"""The apprise hook with a real server: messages, failures, and refused addresses."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.deliveries import File, Notice
from receiver.endpoints import Alert, AlertKind
from receiver.errors import (
    ContentFailure,
    PermanentFailure,
    SettingsError,
    TemporaryFailure,
    TimedOut,
)
from receiver.events import Media
from receiver.hooks import apprise as apprise_hook
from receiver.hooks.apprise import Apprise
from receiver.outgoing import socket_guard
from tests.support.hook_servers import Page, Site, dripping, notice, picture

SECRET = "secret-in-the-url"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        made.pages[f"/{SECRET}"] = Page(b"ok")
        yield made


def hook(site: Site, **more: Any) -> Apprise:
    address = site.url.removeprefix("http://")
    options = {"url": f"json://{address}/{SECRET}", "allow_private": True, **more}
    return Apprise("phones", options)


def with_picture(path: Path, content: bytes) -> Notice:
    """Return a notice of two pictures, one of which was downloaded to this path."""
    path.write_bytes(content)
    file = File("0", str(path), "ab" * 32, len(content), "image/png")
    media = (Media("image", "https://cdn.example/0"), Media("image", "https://cdn.example/1", "1"))
    return notice(media=media).with_files((file,))


def test_title_text_and_picture_arrive(site: Site, tmp_path: Path) -> None:
    content = picture()
    told = with_picture(tmp_path / "0.png", content)
    assert hook(site).send(told).answer == "JSON accepted the message"
    (request,) = site.requests
    document = json.loads(request.body)
    assert document["title"] == "ORDER-7 succeeded"
    assert "Task: 0199f1a2" in document["message"]
    (attachment,) = document["attachments"]
    assert base64.b64decode(attachment["base64"]) == content
    hook(site, pictures=False).send(told)
    assert json.loads(site.requests[1].body)["attachments"] == []


def test_a_picture_that_is_not_attached_is_linked(site: Site, tmp_path: Path) -> None:
    told = with_picture(tmp_path / "0.png", picture())
    hook(site).send(told)
    hook(site, pictures=False).send(told)
    attached, linked = (json.loads(request.body)["message"] for request in site.requests)
    assert "Image: https://cdn.example/1" in attached
    assert "https://cdn.example/0" not in attached
    assert "Image: https://cdn.example/0" in linked


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        ("succeeded", "success"),
        ("failed", "failure"),
        ("given_up", "warning"),
        ("submitted", "info"),
        ("processing", "info"),
    ],
)
def test_the_type_of_the_notification_shows_how_the_task_ended(
    site: Site, status: str, type_: str
) -> None:
    hook(site).send(notice(status))
    assert json.loads(site.requests[0].body)["type"] == type_


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        (AlertKind.PAUSED, "warning"),
        (AlertKind.RECOVERED, "success"),
        (AlertKind.DISABLED, "failure"),
    ],
)
def test_the_type_of_an_alert_shows_the_state_of_the_endpoint(
    site: Site, kind: AlertKind, type_: str
) -> None:
    hook(site).alert(Alert(1, "mail", kind, 1_765_519_850_000, "no answer"))
    assert json.loads(site.requests[0].body)["type"] == type_


@pytest.mark.parametrize("status", [400, 403, 404, 413, 415, 422])
def test_a_message_refused_with_its_picture_is_sent_without_it(
    site: Site, tmp_path: Path, status: int
) -> None:
    page = site.pages[f"/{SECRET}"]

    class WithoutPictures(dict[str, Page]):
        def get(self, path: str, default: Any = None) -> Any:  # noqa: ARG002
            has_picture = json.loads(site.requests[-1].body)["attachments"]
            return Page(b"no", status) if has_picture else page

    site.pages = WithoutPictures()
    assert (
        hook(site).send(with_picture(tmp_path / "0.png", picture())).answer
        == "JSON accepted the message"
    )
    assert len(site.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_one_refused_message_does_not_count_against_the_service(site: Site, status: int) -> None:
    site.pages[f"/{SECRET}"] = Page(b"no", status)
    with pytest.raises(ContentFailure, match=str(status)):
        hook(site).send(notice())


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_a_failing_service_is_called_once(site: Site, tmp_path: Path, status: int) -> None:
    site.pages[f"/{SECRET}"] = Page(b"no", status)
    with pytest.raises(TemporaryFailure, match=str(status)):
        hook(site).send(with_picture(tmp_path / "0.png", picture()))
    assert len(site.requests) == 1


def test_an_alert_arrives(site: Site) -> None:
    hook(site).alert(Alert(1, "mail", AlertKind.PAUSED, 1_765_519_850_000, "no answer"))
    document = json.loads(site.requests[0].body)
    assert 'The hook "mail" is paused' in document["title"]
    assert "no answer" in document["message"]


def test_a_message_that_the_service_does_not_accept_is_retried(site: Site) -> None:
    site.pages[f"/{SECRET}"] = Page(b"no", 500)
    with pytest.raises(TemporaryFailure, match="JSON did not accept the message") as caught:
        hook(site).send(notice())
    assert "500" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_internal_address_is_not_reached(site: Site) -> None:
    with pytest.raises(PermanentFailure, match="allow_private"):
        hook(site, allow_private=False).send(notice())
    assert site.requests == []


def test_a_name_that_resolves_to_an_internal_address_is_not_reached(site: Site) -> None:
    port = site.url.rpartition(":")[2]
    named = Apprise("phones", {"url": f"json://localhost:{port}/{SECRET}"})
    with pytest.raises(PermanentFailure, match="allow_private"):
        named.send(notice())
    assert site.requests == []


def test_no_redirect_is_followed(site: Site) -> None:
    site.pages["/elsewhere"] = Page(b"ok")
    site.pages[f"/{SECRET}"] = Page(b"", 302, {"Location": f"{site.url}/elsewhere"})
    with pytest.raises(TemporaryFailure):
        hook(site).send(notice())
    assert [request.path for request in site.requests] == [f"/{SECRET}"]


def test_a_service_that_does_not_respond_is_abandoned_at_the_deadline() -> None:
    with dripping(b"", then_wait=True) as port:
        slow = Apprise(
            "phones",
            {"url": f"json://127.0.0.1:{port}/{SECRET}", "allow_private": True, "deadline": 0.5},
        )
        with pytest.raises(TimedOut, match=r"JSON: no answer within 0\.5 s"):
            slow.send(notice())


def test_an_exception_of_a_plugin_is_a_temporary_failure(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks:
        service_name = "Breaks"

        def notify(self, **_: Any) -> bool:
            raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(apprise_hook, "open_service", lambda _: Breaks())
    with pytest.raises(
        TemporaryFailure, match=r"Breaks did not accept the message: ZeroDivisionError$"
    ):
        hook(site).send(notice())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("no-such-service://x", "is not one of apprise's URLs"),
        ("", "url"),
        ("syslog://", "acts only on this machine"),
        ("file:///etc/passwd", "acts only on this machine"),
        (f"slack://{SECRET}", "is not one of apprise's URLs"),
    ],
)
def test_an_unusable_url_is_reported_at_the_start(url: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Apprise("phones", {"url": url})
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(SettingsError, match="pip install 'apprise>="):
        Apprise("phones", {"url": "json://example.com/"})


@pytest.mark.parametrize(
    "address",
    [("127.0.0.1", 80), ("localhost", 80), ("10.0.0.1", 80), ("::1", 80, 0, 0), "/run/docker.sock"],
)
def test_a_guarded_thread_cannot_connect_to_internal_addresses(address: Any) -> None:
    with socket_guard.public_only() as refused, pytest.raises(socket_guard.AddressRefused):
        sys.audit("socket.connect", None, address)
    assert len(refused) == 1
    sys.audit("socket.connect", None, address)  # allowed outside of the block


def test_a_public_address_is_allowed() -> None:
    with socket_guard.public_only() as refused:
        sys.audit("socket.connect", None, ("93.184.216.34", 443))
    assert refused == []
