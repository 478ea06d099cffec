"""The URLs that may be requested, and the errors for all others."""

from __future__ import annotations

import ipaddress
import json
import socket
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from receiver import outgoing
from receiver.errors import ContentFailure, PermanentFailure, TemporaryFailure
from receiver.outgoing import http, ssrf_guard

TABLE = json.loads((Path(__file__).parents[1] / "data" / "ssrf.json").read_text("utf-8"))
NOW = 1_765_519_850.0


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address to which a connection was attempted; every attempt fails."""
    tried: list[Any] = []

    def connect(address: Any, *_: Any, **__: Any) -> socket.socket:
        tried.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", connect)
    return tried


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Make every name resolve to these addresses in turn; return the names that were resolved."""
    resolved: list[str] = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        address = addresses[min(len(resolved), len(addresses) - 1)]
        resolved.append(host)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return resolved


@pytest.mark.parametrize("url", TABLE["literal"])
def test_no_spelling_of_an_internal_address_is_connected_to(
    url: str, connections: list[Any]
) -> None:
    with pytest.raises((PermanentFailure, TemporaryFailure)) as caught:
        http.post(url, json={}, deadline=5)
    assert connections == []
    if socket.has_ipv6 or "[" not in url:
        assert isinstance(caught.value, PermanentFailure)


@pytest.mark.parametrize("address", TABLE["resolved"])
def test_a_name_with_an_internal_address_is_not_connected_to(
    address: str, connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, address)
    with pytest.raises(PermanentFailure, match="not a public address"):
        http.post("https://hooks.example/", json={}, deadline=5)
    assert connections == []


@pytest.mark.parametrize("url", TABLE["not_http"])
def test_only_http_and_https_urls_are_requested(url: str, connections: list[Any]) -> None:
    with pytest.raises(PermanentFailure, match="not an http or https URL"):
        http.post(url, json={}, deadline=5)
    assert connections == []


@pytest.mark.parametrize("address", TABLE["public"])
def test_public_addresses_are_connected_to(
    address: str, connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, address)
    with pytest.raises(TemporaryFailure, match="Connection refused"):
        http.post("http://hooks.example:8080/", json={}, deadline=5)
    assert connections == [(address, 8080)]
    assert ssrf_guard.is_public(ipaddress.ip_address(address))


def test_the_connection_uses_the_address_that_was_checked(
    connections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # DNS rebinding: the second lookup returns another address
    resolved = resolve(monkeypatch, "93.184.216.34", "127.0.0.1")
    with pytest.raises(TemporaryFailure):
        http.post("http://hooks.example/", json={}, deadline=5)
    assert resolved == ["hooks.example"]
    assert connections == [("93.184.216.34", 80)]


@pytest.mark.usefixtures("connections")
def test_an_error_shows_no_path_query_or_password(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "93.184.216.34")
    with pytest.raises(TemporaryFailure) as caught:
        http.post("https://us%65r:pa55@hooks.example/T0/S3CRET?sig=S3CRET#S3CRET", json={})
    assert str(caught.value) == "https://hooks.example: Connection refused"
    assert caught.value.__cause__ is None  # requests' own error text shows the path
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.slack.com/services/T/B/x?y", "https://hooks.slack.com"),
        ("http://a:b@[::1]:8080/x", "http://[::1]:8080"),
        ("http://127.0.0.1\\@example.com/", "http://127.0.0.1"),  # as requests parses it
        ("http://[", "the URL"),
        ("", "the URL"),
    ],
)
def test_only_the_origin_of_a_url_is_shown(url: str, shown: str) -> None:
    assert http.origin(url) == shown


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),  # in the past: now
        ("Fri, 12 Dec 2025 06:11:50 -0000", 60.0),
        # RFC 850, which RFC 9110 requires recipients to accept
        ("Friday, 12-Dec-25 06:11:50 GMT", 60.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e9", None),
        ("٣", None),
        ("9" * 5000, None),
        ("Fri, 32 Dec 2025 06:11:50 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert http.retry_after(header, now=NOW) == seconds


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (500, TemporaryFailure),
        (503, TemporaryFailure),
        (599, TemporaryFailure),
        (429, TemporaryFailure),
        (408, TemporaryFailure),
        (425, TemporaryFailure),
        (102, ContentFailure),  # neither a success nor a refusal, but a response
        (204, ContentFailure),
        (600, ContentFailure),
        (301, PermanentFailure),
        (400, PermanentFailure),
        (404, PermanentFailure),
        (410, PermanentFailure),
    ],
)
def test_the_status_of_a_response_decides_whether_a_retry_may_help(
    status: int, family: type
) -> None:
    failure = http.failure(status, {"Retry-After": "7"}, "said so")
    assert type(failure) is family
    assert str(failure) == "said so"
    assert getattr(failure, "retry_after", 7.0) == 7.0


def test_the_package_exports_the_names_that_hooks_of_other_packages_import() -> None:
    """docs/adding-a-hook.md imports them from `receiver.outgoing`."""
    for name in outgoing.__all__:
        assert getattr(outgoing, name) is getattr(http, name)
    assert {"post", "stream", "failure", "retry_after"} <= set(outgoing.__all__)
