"""The headers of a callback that are stored."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from receiver.signing.callback_urls import mint
from receiver.text.limits import MAX_STORED_CHARACTERS, MAX_STORED_HEADER, MAX_STORED_HEADERS
from receiver.web.callbacks import stored_headers
from tests.support.samples import SECRET

TOKEN = mint(SECRET, "kling", "task-1")
PATH = f"/callbacks/kling/task-1/{TOKEN}"


@pytest.mark.parametrize(
    "value",
    [
        PATH,
        f"https://shop.example{PATH}?x=1",
        quote(PATH, safe=""),
        quote(quote(PATH, safe=""), safe=""),
        f"https://shop.example/callbacks%2fkling%2Ftask-1%2f{TOKEN}",
        PATH.upper(),
        "/Callbacks/kling/task-2/of-another-task",
        f"path={TOKEN}",
        f"xx{TOKEN}xx",
        TOKEN.replace("a", "%61"),
        "/callbacks/",
        "https://shop.example/callbacks",
    ],
)
@pytest.mark.parametrize("name", ["X-Original-URI", "Referer", "X-Forwarded-Uri", "X-Anything"])
def test_headers_with_our_path_are_not_stored(name: str, value: str) -> None:
    assert stored_headers([(name, value), ("X-Kept", "yes")], TOKEN) == {"X-Kept": "yes"}


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "X-Auth-Token",
        "X-Api-Key",
        "X-Amz-Security-Token",
        "X-Secret",
        "X-Session-Id",
        "webhook-signature",
        "X-CSRF",
        "X_Odd",
        "X Odd",
        "X-\u00e9",
        "",
        "-",
        "X" * 65,
    ],
)
def test_secret_and_invalid_names_are_not_stored(name: str) -> None:
    assert stored_headers([(name, "canary")], TOKEN) == {}


def test_a_secret_in_a_harmless_header_is_redacted() -> None:
    found = stored_headers([("X-Source", "https://a.example/0.png?Signature=canary")], None)
    assert found == {"X-Source": "https://a.example/0.png?…"}


def test_number_and_length_of_stored_headers_are_limited() -> None:
    many = [(f"X-{number}", "v") for number in range(200)]
    assert list(stored_headers(many, None)) == [
        f"X-{number}" for number in range(MAX_STORED_HEADERS)
    ]
    long = [(f"X-{number}", "v" * (MAX_STORED_HEADER - 10)) for number in range(50)]
    found = stored_headers([*long, ("X-Short", "v")], None)
    assert sum(len(name) + len(value) for name, value in found.items()) <= MAX_STORED_CHARACTERS
    assert len(found) == 9  # eight long headers, and the short one that still fits
    assert stored_headers([("X-Long", "v" * (MAX_STORED_HEADER + 1))], None) == {}


def test_headers_that_describe_the_callback_are_stored() -> None:
    given = {
        "Host": "shop.example",
        "User-Agent": "Apache-HttpClient/4.5.13 (Java/11.0.14-internal)",
        "Content-Type": "application/json; charset=utf-8",
        "webhook-id": "9876543210",
        "webhook-timestamp": "1781080794",
        "X-Forwarded-For": "203.0.113.7, 2001:db8::1",
    }
    assert stored_headers(given.items(), TOKEN) == given


def test_the_token_of_one_request_does_not_affect_the_next() -> None:
    for_other = mint(SECRET, "kling", "task-2")
    header = [("X-Ray", "Root=" + TOKEN.replace("a", "%61"))]
    assert stored_headers(header, TOKEN) == {}
    assert set(stored_headers(header, for_other)) == {"X-Ray"}
    assert stored_headers(header, TOKEN) == {}
