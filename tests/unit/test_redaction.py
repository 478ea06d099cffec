"""Texts that are logged or stored contain no secrets, and ordinary words remain in them."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from receiver.signing.callback_urls import mint
from receiver.text.display import redacted, redacted_path, without_traceback
from tests.support.samples import SECRET

TOKEN = mint(SECRET, "kling", "task-1")
URL = f"https://shop.example/prefix/callbacks/kling/task-1/{TOKEN}"


@pytest.mark.parametrize(
    "text",
    [
        URL,
        f"POST {URL.removeprefix('https://shop.example')} HTTP/1.1",
        f"at <{URL}>, again '{URL}/' and ({URL})",
        json.dumps({"url": URL}).replace("/", "\\/"),
        f"https://proxy.example/to/{quote(URL, safe='')}",
        f"https://proxy.example/to/{quote(quote(URL, safe=''), safe='')}",
        f"https://proxy.example/{quote(URL, safe='').lower()}",
        f"/callbacks/kling//{TOKEN}",
        f"/callbacks//task-1/{TOKEN}",
        f"callbacks/kling/task-1/{TOKEN[:20]}",
        f"{URL}?signature=x&{TOKEN}",
        f"to {URL}?{TOKEN} and {URL}",
        f"https://user:pass@shop.example/callbacks/kling/task-1/{TOKEN}",
        f"https://a.example/?b=c {URL}",
        f"the token {TOKEN} was wrong",
        f"token={TOKEN}",
        f"line one\n{URL}\nline three",
        repr(URL.encode()),
    ],
)
def test_a_token_of_a_callback_url_is_redacted(text: str) -> None:
    shown = redacted(text)
    assert TOKEN[:12] not in shown
    assert "…" in shown


@pytest.mark.parametrize(
    "text",
    [
        "https://cdn.example/0.png?Expires=1&Signature=CANARY",
        "https://cdn.example/0.png?CANARY",
        'url "https://cdn.example/0.png?ksTime=1&x=CANARY" is gone',
        "GET /pictures/0.png?X-Amz-Signature=CANARY HTTP/1.1",
        "HTTPSConnectionPool(host='cdn.example', port=443): url: /0.png?sig=CANARY (Caused by …)",
        "postgresql://user:CANARY@db.example/receiver",
        "https://CANARY@example.com/",
        "https://hooks.slack.com/services/T1/B1/CANARY",
        "the secret whsec_CANARY+/=CANARY",
        "Authorization: Bearer CANARYCANARY",
        "authorization: bearer CANARY.CANARY-_~",
        "'Authorization': 'Basic CANARYCANARY=='",
        "a key eyJhbGciOiJIUzI1NiJ9.eyJCANARY.CANARY",
    ],
)
def test_signed_queries_passwords_and_keys_are_redacted(text: str) -> None:
    assert "CANARY" not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "request",
        "2026-11-21T04:33:28.123456Z",
        "/callbacks/<provider>/<task_id>/<token>",
        "Send the API token: `Authorization: Bearer …`.",
        "01a1fc0aa26f7896aa104de5be899c32",
        "no callback came: is PUBLIC_URL right? Look at the basic set-up, or ask.",
        "https://shop.example/callbacks/kling: no secret is set",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",  # a digest
        "a-name-of-a-picture-that-has-43-characters-",
        "the webhook's secrets begin with whsec_",
        "Hello 😀 \u202e \x00 world",
    ],
)
def test_ordinary_words_remain(text: str) -> None:
    assert redacted(text) == text


def test_the_text_around_a_secret_remains() -> None:
    assert redacted(f'{{"url": "{URL}", "task": "t"}}') == (
        '{"url": "https://shop.example/prefix/callbacks/kling/task-1/…", "task": "t"}'
    )
    assert redacted("GET https://a.example/0.png?x=1 gave 403") == (
        "GET https://a.example/0.png?… gave 403"
    )


def test_redacting_twice_changes_nothing() -> None:
    once = redacted(f"{URL} https://a.example/?b=c Bearer abcdefghij")
    assert redacted(once) == once


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/callbacks/kling/task-1/{TOKEN}", "/callbacks/kling/task-1/…"),
        (f"/callbacks/kling/task-1/{TOKEN}/", "/callbacks/kling/task-1/…/…"),
        (f"/prefix/callbacks/kling/ORDER-7/{TOKEN}?a=b", "/prefix/callbacks/kling/ORDER-7/…"),
        (f"/callback/kling/task-1/{TOKEN}", "/callback/kling/task-1/…"),
        (f"/callbacks/kling/{TOKEN}", "/callbacks/kling/…"),
        (f"/callbacks/kling//{TOKEN}", "/callbacks/kling//…"),
        ("/callbacks/kling/t/short", "/callbacks/kling/t/…"),
        (f"/{TOKEN}", "/…"),
        ("/wp-login.php", "/wp-login.php"),
        ("/\x1b[31mred/é/a b", "/…/…/…"),
        ("/a" * 40, "/a" * 7),
        ("/", "/"),
        ("", ""),
        ("*", ""),
    ],
)
def test_a_path_is_shown_without_its_token(path: str, shown: str) -> None:
    assert redacted_path(path) == shown


@pytest.mark.parametrize("around", ["", '"', "\n", " 😀"])
@pytest.mark.parametrize("place", range(43))
def test_a_token_is_found_wherever_its_only_capital_letter_is(place: int, around: str) -> None:
    letters = "a7" * 22
    token = letters[:place] + "Z" + letters[place + 1 : 43]
    assert redacted(f"key{around}={around}{token}{around}") == f"key{around}={around}…{around}"


def test_a_hostile_text_is_redacted_within_the_time_limit_of_the_test() -> None:
    """An expression that backtracks would need hours."""
    parts = ("callbacks/", "callbacks//", "?", "://", "aA0_", "aaaa", "%2f", "%25", "\\/", "eyJa.")
    for text in (part * 20_000 for part in parts):
        assert redacted(text)


TRACE = """Traceback (most recent call last):
  File "/srv/shop.py", line 6, in on_result
    raise ValueError("no picture")
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ValueError: no picture
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TRACE, "ValueError: no picture"),
        (f"{TRACE}in two lines", "ValueError: no picture\nin two lines"),
        (f"exit status 1: {TRACE}", "exit status 1: ValueError: no picture"),
        (TRACE.replace("no", "1") + "\nDuring …\n\n" + TRACE, "ValueError: no picture"),
        (f"part of a line\n{TRACE[35:]}", "ValueError: no picture"),  # the beginning is missing
        (TRACE[:-24], TRACE[:-24]),  # the end is missing
        ("answered 500: a\n  b", "answered 500: a\n  b"),
        ("", ""),
    ],
)
def test_a_traceback_is_reduced_to_its_error(text: str, shown: str) -> None:
    assert without_traceback(text) == shown
