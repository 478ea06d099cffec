"""The guarded HTTP client with real servers, some of them hostile."""

from __future__ import annotations

import gzip
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import ContentFailure, PermanentFailure, TemporaryFailure, TimedOut
from receiver.outgoing import http, ssrf_guard
from tests.support.hook_servers import Endless, Page, Site, dripping
from tests.support.patience import PATIENCE

DEADLINE = 0.5


def get(url: str, *, max_bytes: int = 1_000_000, deadline: float = PATIENCE) -> tuple[int, bytes]:
    with http.stream(url, deadline=deadline, max_bytes=max_bytes, allow_private=True) as incoming:
        return incoming.status, b"".join(incoming.chunks)


def test_a_post_sends_json_and_gets_the_answer(site: Site) -> None:
    site.pages["/in"] = Page(b"ok", 202, {"X-Said": "yes"})
    answer = http.post(
        f"{site.url}/in", json={"a": "ü"}, headers={"webhook-id": "1"}, allow_private=True
    )
    assert (answer.status, answer.body, answer.headers["x-said"]) == (202, b"ok", "yes")
    (request,) = site.requests
    assert (request.method, request.body) == ("POST", b'{"a": "\\u00fc"}')
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["webhook-id"] == "1"
    assert request.headers["User-Agent"] == "callback-receiver"


def test_a_post_sends_bytes_as_they_are(site: Site) -> None:
    http.post(f"{site.url}/in", data=b'{"a":1}', allow_private=True)
    assert site.requests[0].body == b'{"a":1}'


def test_the_body_of_a_response_is_limited(site: Site) -> None:
    site.pages["/in"] = Page(b"x" * 10_000_000)
    answer = http.post(f"{site.url}/in", json={}, allow_private=True, max_bytes=100)
    assert answer.body == b"x" * 100


def test_an_endless_response_is_cut_off() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * http.CHUNK
    with dripping(endless, pause=0, then_wait=True) as port:
        answer = http.post(f"http://127.0.0.1:{port}/", json={}, allow_private=True)
    assert len(answer.body) == http.CHUNK


def test_a_response_that_never_ends_is_not_mistaken_for_an_empty_one() -> None:
    with (
        dripping(b"HTTP/1.1 200 OK\r\n\r\n", pause=0, then_wait=True) as port,
        pytest.raises(TimedOut, match="no complete answer"),
    ):
        http.post(f"http://127.0.0.1:{port}/", json={}, deadline=DEADLINE, allow_private=True)


def test_loopback_is_refused_unless_allowed(site: Site) -> None:
    with pytest.raises(PermanentFailure, match="not a public address"):
        http.post(f"{site.url}/in", json={})
    assert site.requests == []


def test_a_post_follows_no_redirect(site: Site) -> None:
    site.pages["/in"] = Page(b"", 307, {"Location": "/other"})
    answer = http.post(f"{site.url}/in", json={}, allow_private=True)
    assert answer.status == 307
    assert [request.path for request in site.requests] == ["/in"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Endless(b"HTTP/1.1 200 OK\r\nX-Slow: "), id="header"),
        pytest.param(Endless(b"HTTP/1.1 200 OK\r\n\r\n"), id="body"),
        pytest.param(
            Endless(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"), id="known length"
        ),
        pytest.param(
            Endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;"), id="chunk"
        ),
        pytest.param(Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="continue"),
        pytest.param(Endless(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), id="redirect's body"),
    ],
)
@pytest.mark.parametrize("tls", [False, True])
def test_a_slow_server_is_abandoned_at_the_deadline(
    answer: Endless, tls: bool, request: pytest.FixtureRequest
) -> None:
    if tls:
        request.getfixturevalue("secure_site")  # for its certificate
    with dripping(answer, tls=tls) as port:
        url = f"{'https' if tls else 'http'}://localhost:{port}/S3CRET"
        with pytest.raises(TimedOut, match=r"no complete answer within 0\.5 s") as caught:
            http.post(url, json={}, deadline=DEADLINE, allow_private=True)
        assert "S3CRET" not in str(caught.value)


def test_a_redirect_is_followed_without_waiting_for_its_body(site: Site) -> None:
    site.pages["/b"] = Page(b"here")
    head = f"HTTP/1.1 302 Found\r\nLocation: {site.url}/b\r\n\r\n".encode()
    with dripping(Endless(head), pause=0.002) as port:
        assert get(f"http://127.0.0.1:{port}/a") == (200, b"here")


def test_a_slow_download_is_abandoned_at_the_deadline() -> None:
    with (
        dripping(Endless(b"HTTP/1.1 200 OK\r\n\r\n")) as port,
        pytest.raises(TimedOut, match="no complete answer"),
    ):
        get(f"http://127.0.0.1:{port}/", deadline=DEADLINE)


def test_a_slow_tls_handshake_is_abandoned_at_the_deadline() -> None:
    with (
        dripping(Endless(b"\x16\x03\x03\x40\x00", b"\0")) as port,
        pytest.raises(TimedOut, match="no complete answer"),
    ):
        http.post(f"https://127.0.0.1:{port}/", json={}, deadline=DEADLINE, allow_private=True)


def test_a_slow_name_lookup_is_abandoned_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        release.wait(PATIENCE)
        raise socket.gaierror("late")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for allow_private in (False, True):
        with pytest.raises(TimedOut, match=r"no complete answer within 0\.5 s"):
            http.post(
                "http://slow.example/", json={}, deadline=DEADLINE, allow_private=allow_private
            )
    release.set()


def test_a_truncated_body_is_not_mistaken_for_a_complete_one() -> None:
    with (
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc", pause=0) as port,
        pytest.raises(TemporaryFailure, match="connection broke"),
    ):
        get(f"http://127.0.0.1:{port}/")


def test_a_response_with_two_content_lengths_is_a_temporary_failure() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"
    with (
        dripping(answer, pause=0) as port,
        pytest.raises(TemporaryFailure, match="several sizes as its Content-Length"),
    ):
        get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("size", ["-4", "-10000000000000000000000"])
def test_a_chunk_with_a_negative_size_is_a_temporary_failure(size: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nabc".encode()
    with (
        dripping(answer, pause=0) as port,
        pytest.raises(TemporaryFailure, match="the response is malformed"),
    ):
        get(f"http://127.0.0.1:{port}/")


def test_the_status_counts_even_if_the_body_cannot_be_decompressed(site: Site) -> None:
    site.pages["/a"] = Page(b"?", 503, {"Content-Encoding": "compress"})
    with http.stream(
        f"{site.url}/a", deadline=PATIENCE, max_bytes=100, allow_private=True
    ) as incoming:
        assert incoming.status == 503
        with pytest.raises(ContentFailure, match="compressed with compress, which was not"):
            list(incoming.chunks)


def test_a_download_is_streamed(site: Site) -> None:
    content = bytes(range(256)) * 4_000
    site.pages["/a"] = Page(content)
    assert get(f"{site.url}/a", max_bytes=len(content)) == (200, content)


def test_a_download_larger_than_allowed_is_a_permanent_failure(site: Site) -> None:
    site.pages["/a"] = Page(b"x" * 1_000_001)
    with pytest.raises(PermanentFailure, match="larger than the 1000000 bytes"):
        get(f"{site.url}/a")


def test_a_body_that_decompresses_to_more_than_allowed_is_refused(site: Site) -> None:
    packed = gzip.compress(b"\0" * 50_000_000)
    site.pages["/a"] = Page(packed, 200, {"Content-Encoding": "gzip"})
    with pytest.raises(PermanentFailure, match="larger than"):
        get(f"{site.url}/a", deadline=20)


def test_a_download_follows_redirects(site: Site) -> None:
    for n in range(5):
        site.pages[f"/{n}"] = Page(b"moved", 302, {"Location": f"/{n + 1}"})
    site.pages["/5"] = Page(b"here")
    assert get(f"{site.url}/0") == (200, b"here")


def test_a_download_follows_no_more_than_five_redirects(site: Site) -> None:
    site.pages["/a"] = Page(b"", 302, {"Location": "/a"})
    with pytest.raises(TemporaryFailure, match="redirects more than 5 times"):
        get(f"{site.url}/a")
    assert len(site.requests) == 6


def test_a_redirect_from_an_allowed_host_to_another_internal_one_is_refused(site: Site) -> None:
    other = site.url.replace("127.0.0.1", "127.0.0.2")
    site.pages["/a"] = Page(b"", 302, {"Location": f"{other}/b"})
    site.pages["/b"] = Page(b"secret")
    with pytest.raises(PermanentFailure, match=r"127\.0\.0\.2:\d+: is not a public address"):
        get(f"{site.url}/a")
    assert len(site.requests) == 1


def test_a_redirect_cannot_imitate_the_allowed_host(site: Site) -> None:
    """In `http://a\\@b/`, some parsers see host b, but the parser that connects sees host a."""
    target = site.url.replace("127.0.0.1", "127.0.0.2") + "\\@127.0.0.1/b"
    site.pages["/a"] = Page(b"", 302, {"Location": target})
    with pytest.raises(PermanentFailure):
        get(f"{site.url}/a")
    assert len(site.requests) == 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://[", "ftp://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_refused(site: Site, target: str) -> None:
    site.pages["/a"] = Page(b"", 302, {"Location": target})
    with pytest.raises(PermanentFailure):
        get(f"{site.url}/a")


def test_a_redirect_from_https_to_http_is_refused(secure_site: Site, site: Site) -> None:
    target = site.url.replace("127.0.0.1", "localhost")
    secure_site.pages["/a"] = Page(b"", 302, {"Location": f"{target}/b"})
    with pytest.raises(PermanentFailure, match="from https to http"):
        get(f"{secure_site.url}/a")
    assert site.requests == []


def test_https_works(secure_site: Site) -> None:
    secure_site.pages["/a"] = Page(b"here")
    assert get(f"{secure_site.url}/a") == (200, b"here")


def test_a_certificate_is_checked_against_the_name_not_the_address(
    secure_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client connects to an address, but TLS still has to verify the name."""
    monkeypatch.setattr(ssrf_guard, "is_public", lambda _: True)
    monkeypatch.setattr(
        "requests_hardened.ip_filter._is_ip_in_extra_blocked_ranges", lambda _: False
    )
    monkeypatch.setattr("ipaddress.IPv4Address.is_private", False)
    secure_site.pages["/a"] = Page(b"here")
    assert http.post(f"{secure_site.url}/a", json={}).body == b"here"
    assert secure_site.requests[0].headers["Host"] == secure_site.url.removeprefix("https://")
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda _host, port, *_, **__: [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        ],
    )
    port = secure_site.url.rpartition(":")[2]
    with pytest.raises(TemporaryFailure, match="certificate is not trusted"):
        http.post(f"https://other.example:{port}/a", json={})


def test_an_untrusted_certificate_is_refused() -> None:
    with Site(tls=True) as unknown:
        with pytest.raises(TemporaryFailure, match="certificate is not trusted"):
            http.post(f"{unknown.url}/", json={}, allow_private=True)
        assert unknown.requests == []


def test_proxies_and_passwords_from_the_environment_are_ignored(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    site.pages["/in"] = Page(b"ok")
    assert http.post(f"{site.url}/in", json={}, allow_private=True).status == 200
    assert "Authorization" not in site.requests[0].headers


def test_a_closed_port_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(
        TemporaryFailure, match=rf"^http://127\.0\.0\.1:{port}: Connection refused$"
    ):
        http.post(f"http://127.0.0.1:{port}/S3CRET", json={}, allow_private=True)
