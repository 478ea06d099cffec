"""The letter: what stands in it, and what cannot be smuggled into it."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.deliveries import File, Notice
from receiver.events import Media
from receiver.hooks import letter
from tests.support.hook_servers import notice, picture

PICTURE = Media("image", "https://cdn.example/0.png?a=1&b=2", expires_at=1_768_111_850_000)
SENDER = letter.address("Shop <shop@shop.example>")
TO = [letter.address("team@shop.example")]


def compose(
    told: Notice, hook: str = "mail", subject: str = "{reference} {status}"
) -> EmailMessage:
    """The letter as the other side reads it."""
    made = letter.compose(told, hook=hook, sender=SENDER, recipients=TO, subject=subject, now=5.0)
    read = message_from_bytes(made.as_bytes(), policy=default)
    assert isinstance(read, EmailMessage)
    return read


def part(read: EmailMessage, kind: str) -> str:
    found = read.get_body((kind,))
    assert found is not None
    return str(found.get_content())


def pictures(read: EmailMessage) -> list[EmailMessage]:
    return [each for each in read.walk() if each.get_content_maintype() == "image"]


def saved(path: Path, content: bytes, **more: Any) -> File:
    path.write_bytes(content)
    values: dict[str, Any] = {"size": len(content), "content_type": "image/png", **more}
    return File("0", str(path), "ab" * 32, **values)


def test_the_headers_of_a_letter() -> None:
    read = compose(notice())
    assert read["From"] == "Shop <shop@shop.example>"
    assert read["To"] == "team@shop.example"
    assert read["Subject"] == "ORDER-7 succeeded"
    assert read["Date"] == "Thu, 01 Jan 1970 00:00:05 +0000"
    assert read["Auto-Submitted"] == "auto-generated"


def test_the_message_id_is_the_same_for_every_attempt_and_differs_by_hook_and_status() -> None:
    first = compose(notice())["Message-ID"]
    assert first == compose(notice(reference="other"))["Message-ID"]
    assert first.endswith("@shop.example>")
    others = {compose(notice("failed"))["Message-ID"], compose(notice(), "mail2")["Message-ID"]}
    assert len(others | {first}) == 3


def test_both_texts_name_what_people_want_to_know() -> None:
    read = compose(notice("failed", reason="risk <control>"))
    text, html = part(read, "plain"), part(read, "html")
    for word in ("0199f1a2", "ORDER-7", "kling", "25 s", "failed"):
        assert word in text
        assert word in html
    assert "Reason: risk <control>" in text
    assert "risk &lt;control&gt;" in html


def test_the_picture_stands_in_the_letter(tmp_path: Path) -> None:
    content = picture()
    told = notice(media=(PICTURE,)).with_files((saved(tmp_path / "0.png", content),))
    read = compose(told)
    (inline,) = pictures(read)
    assert inline.get_content() == content
    assert inline.get_content_type() == "image/png"
    assert inline.get_content_disposition() == "inline"
    assert f'src="cid:{inline["Content-ID"].strip("<>")}"' in part(read, "html")
    assert [each.get_content_type() for each in read.walk()] == [
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
    ]


def test_a_picture_that_is_too_large_is_shown_small(tmp_path: Path) -> None:
    small = picture("JPEG")
    large = saved(tmp_path / "0.png", b"x" * (letter.MAX_INLINE + 1), thumbnail=small)
    (inline,) = pictures(compose(notice(media=(PICTURE,)).with_files((large,))))
    assert (inline.get_content(), inline.get_content_type()) == (small, "image/jpeg")


def test_a_picture_that_is_gone_is_shown_small(tmp_path: Path) -> None:
    small = picture("JPEG")
    for url in (str(tmp_path / "gone.png"), "nosuch://bucket/0.png", "memory://gone/0.png"):
        file = File("0", url, "ab" * 32, 100, "image/png", small)
        (inline,) = pictures(compose(notice(media=(PICTURE,)).with_files((file,))))
        assert inline.get_content() == small


def test_a_file_that_has_grown_is_not_read_whole(tmp_path: Path) -> None:
    file = saved(tmp_path / "0.png", b"x" * (letter.MAX_INLINE + 1), size=100)
    assert pictures(compose(notice(media=(PICTURE,)).with_files((file,)))) == []


def test_many_pictures_share_the_room_there_is(tmp_path: Path) -> None:
    media = tuple(Media("image", "https://cdn.example/x", str(n)) for n in range(4))
    size = letter.MAX_INLINE // 3
    files = []
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(b"x" * size)
        files.append(File(str(n), str(tmp_path / f"{n}.png"), "ab" * 32, size, "image/png"))
    read = compose(notice(media=media).with_files(tuple(files)))
    assert len(pictures(read)) == 3
    assert part(read, "html").count("<img") == 3


def test_without_a_file_there_is_the_link() -> None:
    read = compose(notice(media=(PICTURE,)))
    assert pictures(read) == []
    assert f"Image: {PICTURE.url} (until 2026-01-11 06:10:50 UTC)" in part(read, "plain")
    html = part(read, "html")
    assert 'href="https://cdn.example/0.png?a=1&amp;b=2"' in html
    assert "until 2026-01-11" in html


def test_a_letter_tells_the_time_where_people_are() -> None:
    read = compose(replace(notice(media=(PICTURE,)), zone=ZoneInfo("Europe/Berlin")))
    for kind in ("plain", "html"):
        assert "2025-12-12 07:10:50 CET" in part(read, kind)
        assert "until 2026-01-11 07:10:50 CET" in part(read, kind)
        assert "UTC" not in part(read, kind)


def test_a_link_that_is_no_web_address_is_left_out() -> None:
    read = compose(notice(media=(Media("image", "javascript:alert(1)"),)))
    assert "javascript" not in part(read, "plain") + part(read, "html")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


HOSTILE = st.text(st.characters(), min_size=1) | st.sampled_from(
    [
        "x\r\nBcc: evil@example.com",
        '"><script>alert(1)</script>',
        "{task.id}",
        "\ud800",
        "=?utf-8?q?=0D=0ABcc:?=",
    ]
)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_text_of_others_becomes_a_header_or_a_tag(reference: str, reason: str, url: str) -> None:
    media = (Media(url, "https://cdn.example/" + url),)
    told = notice("failed", media, reference=reference, reason=reason)
    read = compose(told)
    assert set(read.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version",
        "Content-Type",
    }  # fmt: skip
    assert read["To"] == "team@shop.example"
    tags = Tags()
    tags.feed(part(read, "html"))
    assert tags.found <= {"html", "body", "table", "tr", "td", "h1", "a", "img"}


def test_letters_are_ascii_on_the_wire() -> None:
    told = notice(reference="Bestellung für Zoë 🧥")
    made = letter.compose(
        told, hook="m", sender=letter.address("Zoë <zoe@bücher.example>"), recipients=TO,
        subject="{reference}", now=5.0,
    )  # fmt: skip
    assert made.as_bytes().isascii()
    read = message_from_bytes(made.as_bytes(), policy=default)
    assert read["Subject"] == "Bestellung für Zoë 🧥"
    assert read["From"].addresses[0].domain == "xn--bcher-kva.example"


@pytest.mark.parametrize("text", ["a@b", "A B <a.b+c@d.example>", '"A, B" <a@b.c>', "ü@b.c"])
def test_addresses_that_are_taken(text: str) -> None:
    assert letter.address(text).domain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a@",
        "@b",
        "a@b@c",
        "a b@c.d",
        "<a@b.c",
        "a@b.c, d@e.f",
        "a@b.c\nBcc: d@e.f",
        "a@b\0c",
    ],
)
def test_addresses_that_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        letter.address(text)
