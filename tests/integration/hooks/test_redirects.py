"""Unusual values of `Location`, and where they lead."""

from __future__ import annotations

import socket

import pytest

from receiver.errors import PermanentFailure
from receiver.outgoing import http
from tests.support.hook_servers import Page, Site, dripping
from tests.support.patience import PATIENCE


def get(url: str, *, allow_private: bool = True) -> tuple[int, bytes]:
    with http.stream(
        url, deadline=PATIENCE, max_bytes=1_000_000, allow_private=allow_private
    ) as incoming:
        return incoming.status, b"".join(incoming.chunks)


def moved(location: str) -> Page:
    """Return a redirect whose Location is raw UTF-8."""
    return Page(b"moved", 302, {"Location": location.encode().decode("latin-1")})


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/試着/à", "/%E8%A9%A6%E7%9D%80/%C3%A0"),
        ("  /b.png  ", "/b.png"),
        ("/b c.png?d=é", "/b%20c.png?d=%C3%A9"),
        ("b%20c.png", "/b%20c.png"),
        ("/50%?sig=a%2Bb", "/50%25?sig=a%2Bb"),
        ("\\b.png", "/b.png"),
        ("http:/b.png", "/b.png"),
        ("/b.png#é", "/b.png"),
    ],
)
def test_a_location_is_followed_as_browsers_do(site: Site, location: str, path: str) -> None:
    site.pages["/a"] = moved(location)
    site.pages[path] = Page(b"here")
    assert get(f"{site.url}/a") == (200, b"here")


def test_the_host_decides_and_not_its_spelling(site: Site) -> None:
    site.pages["/a"] = moved(f"//１２７.0.0.1:{site.server.server_port}/b")  # noqa: RUF001
    site.pages["/b"] = Page(b"here")
    assert get(f"{site.url}/a") == (200, b"here")


def test_the_first_url_may_have_spaces_and_raw_characters(site: Site) -> None:
    site.pages["/%C3%A9%20x.png"] = Page(b"here")
    assert get(f" {site.url}/é x.png\n") == (200, b"here")


@pytest.mark.parametrize(
    "location",
    [
        "http://{}\\@127.0.0.1:{}/",
        "//１２７.0.0.2:{1}/",  # noqa: RUF001
        "http:\\\\{}:{}",
        "//{}:{}/é",
        "  http://{}:{}/  ",
    ],
)
def test_each_spelling_of_another_internal_host_is_refused(site: Site, location: str) -> None:
    """`allow_private` applies only to the first host."""
    site.pages["/a"] = moved(location.format("127.0.0.2", site.server.server_port))
    with pytest.raises(PermanentFailure, match="is not a public address"):
        get(f"{site.url}/a")
    assert [request.path for request in site.requests] == ["/a"]


@pytest.mark.parametrize("location", ["", "  "])
def test_an_empty_location_is_no_redirect(site: Site, location: str) -> None:
    site.pages["/a"] = Page(b"moved", 302, {"Location": location})
    assert get(f"{site.url}/a") == (302, b"moved")


@pytest.mark.parametrize(
    "location", ["https://", "//a b/", "ftp://127.0.0.1/", "data:,x", "//a%40b/", "http://["]
)
def test_an_invalid_location_is_reported(site: Site, location: str) -> None:
    site.pages["/a"] = moved(location)
    with pytest.raises(http.UrlRefused):
        get(f"{site.url}/a")


def test_a_post_succeeds_although_the_response_cannot_be_decompressed(site: Site) -> None:
    site.pages["/in"] = Page(b"thanks", 201, {"Content-Encoding": "gzip"})
    assert http.post(f"{site.url}/in", json={}, allow_private=True).status == 201


def test_a_repeated_location_is_followed_and_two_different_ones_are_not(site: Site) -> None:
    site.pages["/b"] = Page(b"here")
    head = "HTTP/1.1 302 Found\r\nLocation: {0}/b\r\nLocation: {0}/{1}\r\n\r\n"
    with dripping(head.format(site.url, "b").encode(), pause=0) as port:
        assert get(f"http://127.0.0.1:{port}/") == (200, b"here")
    with (
        dripping(head.format(site.url, "c").encode(), pause=0) as port,
        pytest.raises(http.UrlRefused, match="several URLs"),
    ):
        get(f"http://127.0.0.1:{port}/")


def test_a_redirect_to_a_name_of_an_internal_address_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name in raw UTF-8 is resolved, and its address is checked, like any other."""
    resolve = socket.getaddrinfo
    asked: list[str] = []

    def getaddrinfo(host: str, *more: object, **options: object) -> object:
        asked.append(host)
        return resolve("127.0.0.1", *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    site.pages["/a"] = moved(f"http://bücher.example:{site.server.server_port}/b")
    with pytest.raises(PermanentFailure, match="is not a public address"):
        get(f"{site.url}/a")
    assert "xn--bcher-kva.example" in asked
    assert [request.path for request in site.requests] == ["/a"]
