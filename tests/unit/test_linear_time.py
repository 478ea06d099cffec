"""Every function that reads text from outside takes a number of steps proportional to its length.

Regular expressions are checked by their structure (test_linear_expressions.py). These tests count
the executed lines of Python, and the comparisons of the keys of an object.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

from receiver import providers
from receiver.errors import CallbackReceiverError
from receiver.events import Callback, Source
from receiver.hooks import slack, wording
from receiver.hooks.file_names import Characters, Literal, NamePattern
from receiver.outgoing import http, urls
from receiver.pictures.file_types import detect, text_in
from receiver.providers import fields, json_body, outputs
from receiver.signing import standard_webhooks
from receiver.signing.callback_urls import mint
from receiver.stores.sql.rows import StoredCallback
from receiver.tasks import Outcome, Trust
from receiver.text import content_encoding, html_page
from receiver.text.display import hiding, one_line, redacted, redacted_path, shortened, storable
from receiver.text.limits import MAX_BODY
from receiver.web import callbacks, middleware
from receiver.web.dashboard.messages import message
from submitter.batch import spreadsheet
from submitter.batch.rows import COLUMNS
from submitter.errors import InputError
from submitter.pictures import images
from submitter.text import readable
from tests.support.samples import SECRET
from tests.support.steps import Counted, grows_linearly, refusing_long_runs, steps

SIZE = 150  # repetitions
TOKEN = mint(SECRET, "kling", "task-1")
HIDE = hiding(["https://discord.example/api/webhooks/1234/AbCdEfGh?wait=true", "a-secret-value"])


def of_picture(url: str) -> None:
    with suppress(InputError):
        images.prepare("human", url)


PARTS = [
    "callbacks",
    "callbacks/",
    "callbacks//",
    "callbacks\\/",
    "callbacks/a/",
    "callbacks/a/b/",
    "\\/",
    "\\\\",
    "/",
    "%2f",
    "%25",
    "?",
    "?a",
    "?a=",
    "a?",
    "://",
    "://a",
    "://a@",
    "@",
    "hooks.slack.com/",
    "whsec_",
    "Bearer ",
    "Bearer +",
    "+",
    "eyJ",
    "-eyJ",
    "eyJa.",
    ".",
    "eyJabcdefgh.",
    "eyJabcdefgh.a",
    "aA0_",
    "aaaa",
    "A",
    f"{TOKEN} ",
    TOKEN,
    "a-secret-value",
    "a-secret-",
    "<",
    "<a",
    "<!--",
    "<script>",
    "<title>",
    "&amp;",
    " ",
    "\n",
    "\u202e",
    "é",
    "\ud800",
    "\0",
    "[",
    '"',
    "{",
]
READERS: list[Callable[[str], object]] = [
    redacted,
    HIDE,
    redacted_path,
    storable,
    lambda text: shortened(text, 100),
    lambda text: shortened(text, 100_000, is_cut=True),
    fields.cleaned,
    fields.instant,
    fields.identity,
    fields.amount,
    lambda text: outputs.expires_at(f"https://a.example/?{text}", 0),
    lambda text: outputs.expires_at(f"{text}?Expires=1", 0),
    lambda text: of_picture(f"https://{text}"),
    middleware.normalized,
    lambda text: middleware.normalized(f"/callbacks/kling/task-1/{text}"),
    lambda text: callbacks.stored_headers([("X-Note", text), (text, "a")], TOKEN),
    lambda text: callbacks.stored_headers([("X-Note", text[:100])], TOKEN),
    one_line,
    lambda text: html_page.readable(f"<html>{text}"),
    wording.inert,
    wording.without_elements,
    wording.as_markdown,
    wording.markdown_link,
    wording.is_link,
    lambda text: wording.quoted(text, 200),
    lambda text: slack.escaped(text, 3000),
    readable,
    lambda text: list(spreadsheet.rows(f"reference,{text}\n{text}\n", COLUMNS)),
    spreadsheet.cell,
    lambda text: http.retry_after(text, 0.0),
    http.origin,
    urls.normalized,
    lambda text: urls.normalized(f"https://a.example/{text}"),
    lambda text: urls.redirect_target(text, "https://a.example/b"),
    lambda text: detect(text.encode("utf-8", "replace")),
    lambda text: text_in(text.encode("utf-8", "replace")),
    lambda text: content_encoding.decoded(text.encode("utf-8", "replace"), "gzip"),
    lambda text: content_encoding.decoded(b"{}", text),
    lambda text: standard_webhooks.verify(
        ["whsec_" + "a" * 32],
        {"webhook-id": text, "webhook-timestamp": "0", "webhook-signature": f"v1,{text} {text}"},
        b"",
        0,
    ),
]


@pytest.mark.parametrize("reader", range(len(READERS)))
def test_the_steps_of_a_reader_grow_linearly(reader: int) -> None:
    for part in PARTS:

        def read(size: int, part: str = part) -> None:
            with suppress(CallbackReceiverError, ValueError):
                READERS[reader](part * size)

        assert grows_linearly(read, SIZE), part


@pytest.mark.parametrize("reader", range(len(READERS)))
def test_no_reader_sorts_many_combining_characters(
    reader: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`urlsplit` sorts those in a host name: a callback of 80 kB stopped a process for 7 s."""
    monkeypatch.setattr(unicodedata, "normalize", refusing_long_runs(unicodedata.normalize))
    for before in ("", "https://a", "https://a?b=", "//"):
        with suppress(CallbackReceiverError, ValueError):
            READERS[reader](before + "\u0301\u0316" * 2000 + "/b?c=d")


def test_a_hostile_text_is_redacted_in_linear_steps() -> None:
    """At most two lines of Python run for each character of the longest possible callback."""
    for part in PARTS:
        text = part * (MAX_BODY // len(part))
        assert HIDE(text) is not None  # an expression that backtracks would need hours
        assert steps(partial(HIDE, text[:3000])) <= 2 * 3000 + 1000, part


BODIES: list[Callable[[int], str]] = [
    lambda size: "{" + ",".join('"a":1' for _ in range(size)) + "}",
    lambda size: "{" + ",".join(f'"k{n}":1,"k{n}":2' for n in range(size)) + "}",
    lambda size: '{"data":{"task_result":{"images":[' + ",".join(["{}"] * size) + "]}}}",
    lambda size: '{"a":' + "9" * size + "}",
    lambda size: '{"a":0.' + "9" * size + "e" + "9" * 20 + "}",
    lambda size: '{"a":"' + "\\\\" * size + '\\u0000"}',
    lambda size: '{"a":"' + "\\ud800" * size + '"}',
    lambda size: '{"task_id":"a","task_status":"failed","task_status_msg":"' + "eyJ-" * size + '"}',
    lambda size: '{"a":' + "[" * size + "]" * size + "}",
    lambda size: "{" * size,
    lambda size: '{"a":"' * size,
]


def callback(body: str) -> Callback:
    return Callback(
        provider="kling",
        task_id="task-1",
        trust=Trust.TOKEN,
        source=Source.CALLBACK,
        received_at=1_765_519_850_000,
        body=body.encode("utf-8", "replace"),
    )


def test_a_file_name_is_compared_in_linear_steps() -> None:
    """As a regular expression, the comparison of 250 characters took 14 s."""
    run = Characters(frozenset("ab-"))
    hyphen, end = Literal("-"), (Literal("."), Characters(frozenset("png")))
    name = NamePattern((run, hyphen, run, run, hyphen, run, *end))
    assert name.matches("a-bb-a.png")
    assert not name.matches("a-b-a.png")
    assert not name.matches("a-bb-a.pngx")
    for part in ("a", "a-", "-", ".", "ab-."):

        def read(size: int, part: str = part) -> None:
            assert not name.matches(part * size + "!")

        assert grows_linearly(read, SIZE), part


@pytest.mark.parametrize("number", range(len(BODIES)))
def test_the_steps_for_a_body_grow_linearly(number: int) -> None:
    def read(size: int) -> None:
        body = BODIES[number](size)
        for decode in (json_body.decode, json_body.decode_strictly):
            with suppress(CallbackReceiverError):
                decode(body.encode())
        with suppress(CallbackReceiverError):
            providers.parse(callback(body))
        stored = StoredCallback(1, callback(body), Outcome.QUARANTINED, 0)
        message(stored, redacted)

    assert grows_linearly(read, SIZE)


@pytest.mark.parametrize("key", ["a", "{}"])
def test_each_key_of_an_object_is_compared_only_a_few_times(key: str) -> None:
    """With lists instead of sets, 2,000 keys took 2,000,000 comparisons."""
    pairs = [(Counted(key.format(number)), number) for number in range(2000)]
    Counted.comparisons = 0
    fields.RepeatedKeys([(Counted(key if key == "a" else f"k{n}"), n) for n, _ in enumerate(pairs)])
    assert Counted.comparisons <= 4 * len(pairs)


def test_the_indentation_of_a_deeply_nested_body_is_limited() -> None:
    body = "[" * 150 + "1," * 4999 + "1" + "]" * 150
    shown = message(StoredCallback(1, callback(body), Outcome.QUARANTINED, 0), len_of := Longest())
    assert shown.text
    assert len_of.longest <= 4 * len(body)


class Longest:
    """Remembers the length of the longest text that it received."""

    longest = 0

    def __call__(self, text: str) -> str:
        self.longest = max(self.longest, len(text))
        return text


def test_a_long_reason_is_shortened_by_the_parser_and_shows_no_part_of_a_secret() -> None:
    for start in range(900, 1010, 7):
        reason = "word " * (start // 5) + f"{TOKEN} " + "more " * 500
        document = {"task_id": "a", "task_status": "failed", "task_status_msg": reason}
        event = providers.parse(callback(json.dumps(document)))
        assert event.reason is not None
        assert len(event.reason) <= providers.MAX_REASON
        assert event.reason.endswith("…")
        assert TOKEN[:6] not in event.reason


@pytest.mark.parametrize("secret", ["hunter-2-hunter-2", "x" * 200, "p+q/r=s%t&u!v"])
def test_a_shortened_text_ends_before_a_secret(secret: str) -> None:
    for before in range(0, 120, 3):
        text = "said: " + "y " * before + secret + " and more of it" * 50
        for is_cut in (False, True):
            given = text[: 100 if is_cut else None]
            shown = shortened(given, 100, is_cut=is_cut)
            assert len(shown) <= 101
            assert secret in shown or secret[:4] not in shown
