"""URLs are read as browsers read them; the expectations follow the WHATWG URL standard."""

from __future__ import annotations

import pytest

from receiver.outgoing import urls

BASE = "https://cdn.example:8443/a/b?c"
HOST = "https://cdn.example:8443"


def header(text: str) -> str:
    """Return a header with raw UTF-8, as HTTP libraries decode it."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/é/ü.png", f"{HOST}/%C3%A9/%C3%BC.png"),
        ("/試着/结果 1.png", f"{HOST}/%E8%A9%A6%E7%9D%80/%E7%BB%93%E6%9E%9C%201.png"),
        ("/🧥.png?name=ä", f"{HOST}/%F0%9F%A7%A5.png?name=%C3%A4"),
        # The last byte is a space or a line break in Python, but not in HTTP.
        ("/à", f"{HOST}/%C3%A0"),
        ("/Å", f"{HOST}/%C3%85"),
        ("/\u00a0", f"{HOST}/%C2%A0"),
        ("/\u0085", f"{HOST}/%C2%85"),
        ("  /x.png", f"{HOST}/x.png"),
        ("/x.png \t ", f"{HOST}/x.png"),
        ("\x00\x1f/x.png\x00", f"{HOST}/x.png"),
        ("/x y.png", f"{HOST}/x%20y.png"),
        ("/x\ty\r\nz.png", f"{HOST}/xyz.png"),
        ("h\tttps://other.example/", "https://other.example/"),
        ("/x\x01y", f"{HOST}/x%01y"),
        ("/x\x7fy", f"{HOST}/x%7Fy"),
        ("/%E4%B8%AD?sig=a%2Bb%3D", f"{HOST}/%E4%B8%AD?sig=a%2Bb%3D"),  # is not escaped twice
        ("/é%20ü", f"{HOST}/%C3%A9%20%C3%BC"),
        ("/100%", f"{HOST}/100%25"),
        ("/100%25%zz%4", f"{HOST}/100%25%25zz%254"),
        ("c.png", f"{HOST}/a/c.png"),
        ("./c.png", f"{HOST}/a/c.png"),
        ("../../../c.png", f"{HOST}/c.png"),
        ("?d=e", f"{HOST}/a/b?d=e"),
        ("#part", BASE),
        ("/x#päge", f"{HOST}/x"),
        ("/time/12:30", f"{HOST}/time/12:30"),
        ("12:30", f"{HOST}/a/12:30"),
        ("//other.example/x", "https://other.example/x"),
        ("///other.example/x", "https://other.example/x"),
        ("\\\\other.example\\x", "https://other.example/x"),
        ("/\\other.example/x", "https://other.example/x"),
        ("/a\\b?c\\d", f"{HOST}/a/b?c\\d"),
        ("http://other.example\\@cdn.example/", "http://other.example/@cdn.example/"),
        ("HTTPS://Other.example/", "https://Other.example/"),
        ("https:c.png", f"{HOST}/a/c.png"),
        ("https:/c.png", f"{HOST}/c.png"),
        ("http:other.example/c.png", "http://other.example/c.png"),
        ("http:/other.example/c.png", "http://other.example/c.png"),
        ("http:////other.example/c.png", "http://other.example/c.png"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://b%C3%BCcher.example:444/", "https://xn--bcher-kva.example:444/"),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example"),
        ("https://例え。テスト/", "https://xn--r8jz45g.xn--zckzah/"),
        ("http://１２７.0.0.1/", "http://127.0.0.1/"),  # noqa: RUF001 - full-width digits
        ("http://127%2e0.0.1/", "http://127.0.0.1/"),
        ("https://user:pä@other.example/x", "https://user:p%C3%A4@other.example/x"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://[::1]", "http://[::1]"),
    ],
)
def test_a_location_is_resolved_like_in_browsers(location: str, url: str) -> None:
    assert urls.redirect_target(header(location), BASE) == url


def test_bytes_of_another_encoding_are_sent_unchanged() -> None:
    assert urls.redirect_target("/caf\xe9.png", BASE) == f"{HOST}/caf%E9.png"  # Latin-1
    assert (
        urls.redirect_target("/試.png", BASE) == f"{HOST}/%E8%A9%A6.png"
    )  # decoded by the library


@pytest.mark.parametrize("location", ["", " ", "\t", "\x00 "])
def test_an_empty_location_is_no_redirect(location: str) -> None:
    assert urls.redirect_target(location, BASE) is None


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://other.example/",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "gopher:x",
        "https://",
        "http:///",
        "https://?x",
        "https://user@/x",
        "https://:80/x",
        "https://a b/",
        "https://a%20b/",
        "https://a%00b/",
        "https://a%40b/",
        "https://a%2Fb/",
        "https://a%3A80/",
        "https://a%5Cb/",
        "https://a%zz/",
        "https://%FF/",
        "https://\u2060/",
        # Some of these become a delimiter when a host is normalised.
        "https://evil.example\uff0f.cdn.example/",
        "https://evil.example\uff20cdn.example/",
        "https://evil.example\uff1f.cdn.example/",
        "https://evil.example\uff1a80.cdn.example/",
        "https://evil.example\u2100.cdn.example/",
        "https://evil.example\uff05.cdn.example/",
        "https://" + "ü" * 5_000,
    ],
)
def test_an_invalid_location_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        urls.redirect_target(header(location), BASE)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://cdn.example/0.png?sig=a%2Bb&x=1", "https://cdn.example/0.png?sig=a%2Bb&x=1"),
        (" https://cdn.example/試着 1.png\n", "https://cdn.example/%E8%A9%A6%E7%9D%80%201.png"),
        ("https://bücher.example/ä#x", "https://xn--bcher-kva.example/%C3%A4"),
        ("https:\\\\cdn.example\\0.png", "https://cdn.example/0.png"),
        ("https://cdn.example/\ud83e.png", "https://cdn.example/?.png"),
    ],
)
def test_the_first_url_is_read_in_the_same_way(given: str, url: str) -> None:
    assert urls.normalized(given) == url


@pytest.mark.parametrize("given", ["", " ", "/0.png", "//cdn.example/0.png", "0.png", "ftp://a/b"])
def test_the_first_url_has_to_be_absolute(given: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        urls.normalized(given)


def test_a_normalised_url_does_not_change_again() -> None:
    once = urls.redirect_target(header("//Bücher.example/ä ö%?x=ü#z"), BASE)
    assert once is not None
    assert urls.normalized(once) == once
