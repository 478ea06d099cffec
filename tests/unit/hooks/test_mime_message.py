"""The content of an e-mail message, into which nothing can be injected."""

from __future__ import annotations

import io
import re
import zlib
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
from PIL import Image, ImageStat

from receiver.deliveries import File, Notice
from receiver.events import Media
from receiver.hooks import mime_message
from receiver.pictures.thumbnails import PREVIEW_BYTES, PREVIEW_SIDE
from tests.support.hook_servers import notice, picture
from tests.support.picture_files import chunk, with_chunks

PARTS = ("html", "head", "meta", "title", "body", "main")
PICTURE = Media("image", "https://cdn.example/0.png?a=1&b=2", expires_at=1_768_111_850_000)
SENDER = mime_message.address("Shop <shop@shop.example>")
TO = [mime_message.address("team@shop.example")]


def compose(
    source: Notice, hook: str = "mail", subject: str = "{reference} {status}"
) -> EmailMessage:
    """Return the message as the recipient parses it."""
    message = next(
        mime_message.versions(
            source, hook=hook, sender=SENDER, recipients=TO, subject=subject, now=5.0
        )
    )
    read = message_from_bytes(message.as_bytes(), policy=default)
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


def test_the_headers_of_a_message() -> None:
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


def test_both_texts_contain_the_important_facts() -> None:
    read = compose(notice("failed", reason="risk <control>"))
    text, html = part(read, "plain"), part(read, "html")
    for word in ("0199f1a2", "ORDER-7", "kling", "25 s", "failed"):
        assert word in text
        assert word in html
    assert "Reason: risk <control>" in text
    assert "risk &lt;control&gt;" in html


def of(content: bytes, path: Path, **more: Any) -> Notice:
    """Return a notice with one picture, which was downloaded to this path."""
    return notice(media=(PICTURE,)).with_files((saved(path, content, **more),))


def inline(read: EmailMessage) -> Image.Image:
    """Return the only picture that the message shows inline."""
    (shown,) = [each for each in pictures(read) if each.get_content_disposition() == "inline"]
    assert shown.get_content_type() == "image/jpeg"
    assert f'src="cid:{shown["Content-ID"].strip("<>")}"' in part(read, "html")
    content = shown.get_content()
    assert len(content) <= PREVIEW_BYTES
    image = Image.open(io.BytesIO(content))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert max(image.size) <= PREVIEW_SIDE
    return image


def attached(read: EmailMessage) -> list[tuple[str | None, str, bytes]]:
    """Return the file name, type and content of each attachment."""
    return [
        (each.get_filename(), each.get_content_type(), each.get_content())
        for each in read.iter_attachments()
    ]


def test_a_message_shows_a_preview_and_attaches_the_original(tmp_path: Path) -> None:
    content = picture()
    read = compose(of(content, tmp_path / "0.png"))
    assert inline(read).size == (64, 48)
    assert attached(read) == [("picture-1.png", "image/png", content)]
    assert "Attached: picture-1.png" in part(read, "plain")
    assert [each.get_content_type() for each in read.walk()] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/jpeg",
        "image/png",
    ]


def encoded(image: Image.Image, fmt: str, **save: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **save)
    return out.getvalue()


GRADIENT = Image.linear_gradient("L").resize((64, 48))
FRAMES = [GRADIENT.convert("RGB"), GRADIENT.convert("RGB").rotate(180)]
UPSIDE_DOWN = Image.Exif()
UPSIDE_DOWN[0x0112] = 6  # orientation: the camera was rotated by 90 degrees
# Pictures that a mail client cannot show, or would show in wrong colours or on their side.
PICTURES = {
    "webp": encoded(FRAMES[0], "WEBP"),
    "lossless webp": encoded(FRAMES[0], "WEBP", lossless=True),
    "animated webp": encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
    "animated gif": encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "animated png": encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
    "cmyk jpeg": encoded(GRADIENT.convert("CMYK"), "JPEG"),
    "grey jpeg": encoded(GRADIENT, "JPEG"),
    "progressive jpeg": encoded(FRAMES[0], "JPEG", progressive=True),
    "camera jpeg": encoded(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:]),
    "16-bit png": encoded(GRADIENT.convert("I").point(lambda x: x * 257).convert("I;16"), "PNG"),
    "palette png": encoded(FRAMES[0].quantize(16), "PNG"),
    "two-colour png": encoded(GRADIENT.convert("1"), "PNG"),
    "grey png with alpha": encoded(GRADIENT.convert("LA"), "PNG"),
    "png with alpha": encoded(GRADIENT.convert("RGBA"), "PNG"),
    "bmp": encoded(FRAMES[0], "BMP"),
    "tiff": encoded(FRAMES[0], "TIFF"),
    "cmyk tiff": encoded(GRADIENT.convert("CMYK"), "TIFF"),
    "jpeg 2000": encoded(FRAMES[0], "JPEG2000"),
    "avif": encoded(FRAMES[0], "AVIF"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_kind_of_picture_is_shown_as_a_jpeg_and_attached_unchanged(
    tmp_path: Path, kind: str
) -> None:
    content = PICTURES[kind]
    read = compose(of(content, tmp_path / "0.bin", content_type="application/octet-stream"))
    assert inline(read).size == (64, 48)
    assert attached(read) == [("picture-1.bin", "application/octet-stream", content)]


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_a_preview_is_upright(tmp_path: Path, fmt: str) -> None:
    content = encoded(FRAMES[0], fmt, exif=UPSIDE_DOWN)
    assert inline(compose(of(content, tmp_path / "0"))).size == (48, 64)


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "GIF"])
def test_a_preview_of_a_transparent_picture_has_a_white_background(
    tmp_path: Path, fmt: str
) -> None:
    content = encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), fmt)
    assert inline(compose(of(content, tmp_path / "0"))).getpixel((4, 4)) == (255, 255, 255)


def with_text(png: bytes, text: bytes, checksum: bytes | None = None) -> bytes:
    """Return the PNG with a chunk of compressed text after its header."""
    chunk = b"zTXt" + b"comment\0\0" + zlib.compress(text)
    end = zlib.crc32(chunk).to_bytes(4) if checksum is None else checksum
    return png[:33] + (len(chunk) - 4).to_bytes(4) + chunk + end + png[33:]


@pytest.mark.parametrize(
    "content",
    [
        with_text(picture(), b"x" * 20_000_000),
        with_text(picture(), b"x", checksum=b"\0\0\0\0"),
        encoded(FRAMES[0], "PNG", icc_profile=b"not a profile"),
        encoded(FRAMES[0], "JPEG", icc_profile=b"not a profile"),
    ],
)
def test_a_picture_with_much_metadata_has_a_preview(tmp_path: Path, content: bytes) -> None:
    assert inline(compose(of(content, tmp_path / "0"))).size == (64, 48)


@pytest.mark.parametrize("kind", ["16-bit png", "cmyk jpeg", "grey jpeg", "two-colour png", "avif"])
def test_a_preview_is_as_bright_as_the_picture(tmp_path: Path, kind: str) -> None:
    shown = inline(compose(of(PICTURES[kind], tmp_path / "0"))).convert("L")
    assert abs(ImageStat.Stat(shown).mean[0] - ImageStat.Stat(GRADIENT).mean[0]) < 3


def test_every_preview_has_a_limited_size(tmp_path: Path) -> None:
    noise = Image.effect_noise((1600, 1200), 100)
    inline(compose(of(encoded(noise, "PNG"), tmp_path / "0.png")))


def test_a_preview_contains_no_metadata(tmp_path: Path) -> None:
    content = encoded(FRAMES[0], "JPEG", comment=b"made by NAME", exif=UPSIDE_DOWN)
    image = inline(compose(of(content, tmp_path / "0.jpg")))
    assert "comment" not in image.info
    assert not image.getexif()


def test_a_picture_with_a_huge_comment_has_a_preview(tmp_path: Path) -> None:
    huge = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 * 2**20)))
    content = with_chunks(encoded(FRAMES[0], "PNG"), huge)
    assert inline(compose(of(content, tmp_path / "0.png"))).size == (64, 48)


def test_an_original_that_is_too_large_is_not_attached_but_previewed(tmp_path: Path) -> None:
    content = encoded(FRAMES[0].resize((1200, 900)), "BMP")
    assert len(content) > mime_message.MAX_INLINE
    read = compose(of(content, tmp_path / "0.bmp", content_type="image/bmp"))
    assert max(inline(read).size) == PREVIEW_SIDE
    assert attached(read) == []
    assert PICTURE.url in part(read, "plain")


@pytest.mark.parametrize("content", [b"", b"x" * 5_000, PICTURES["webp"][:-20], b"<svg/>"])
def test_a_picture_that_cannot_be_decoded_is_shown_as_its_thumbnail(
    tmp_path: Path, content: bytes
) -> None:
    small = picture("JPEG", (32, 24))
    read = compose(of(content, tmp_path / "0.png", thumbnail=small))
    assert inline(read).size == (32, 24)
    assert [each for _, _, each in attached(read)] == ([content] if content else [])


def test_a_picture_with_too_many_pixels_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.hooks.content.MAX_PIXELS", 64 * 48 - 1)
    read = compose(of(picture(), tmp_path / "0.png", thumbnail=picture("JPEG", (32, 24))))
    assert inline(read).size == (32, 24)


def test_a_deleted_picture_is_shown_as_its_thumbnail(tmp_path: Path) -> None:
    small = picture("JPEG")
    for url in (str(tmp_path / "gone.png"), "nosuch://bucket/0.png", "memory://gone/0.png"):
        file = File("0", url, "ab" * 32, 100, "image/png", small)
        read = compose(notice(media=(PICTURE,)).with_files((file,)))
        assert inline(read).size == (64, 48)
        assert attached(read) == []


@pytest.mark.parametrize("stated_size", [100, 10_000])
def test_a_file_that_is_too_large_is_not_read_completely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated_size: int
) -> None:
    """The file may have been too large when it was downloaded, or may have grown since."""
    monkeypatch.setattr(mime_message, "MAX_READ", 1_000)
    read = compose(of(picture("BMP"), tmp_path / "0.bmp", size=stated_size))
    assert pictures(read) == []


def test_all_pictures_are_shown_and_attached_while_they_fit(tmp_path: Path) -> None:
    media = tuple(Media("image", "https://cdn.example/x", str(n)) for n in range(4))
    content = encoded(FRAMES[0].resize((600, 500)), "BMP")
    files = []
    for n in range(4):
        (tmp_path / f"{n}.bmp").write_bytes(content)
        url, size = str(tmp_path / f"{n}.bmp"), len(content)
        files.append(File(str(n), url, "ab" * 32, size, "image/bmp"))
    read = compose(notice(media=media).with_files(tuple(files)))
    assert [name for name, _, _ in attached(read)] == [f"picture-{n}.bmp" for n in (1, 2, 3)]
    assert part(read, "html").count("<img") == 4
    assert len({each["Content-ID"] for each in pictures(read) if each["Content-ID"]}) == 4


@pytest.mark.parametrize("length", [4, 32, 33, 34, 45, 63, 100, 240])
def test_the_inline_picture_is_found_with_a_long_sender_domain(tmp_path: Path, length: int) -> None:
    labels = ["d" * 60] * (length // 61) + ["e" * (length % 61 or 1)]
    sender = mime_message.address(f"shop@{'.'.join(labels)}.example")
    message = next(mime_message.versions(
        of(picture(), tmp_path / "0.png"), hook="mail", sender=sender, recipients=TO,
        subject="x", now=5.0,
    ))  # fmt: skip
    raw = message.as_bytes()
    (content_id,) = re.findall(rb"^Content-ID: <([^<>\s]+)>\r$", raw, re.MULTILINE)
    assert b'src=3D"cid:' + content_id in raw or b'src="cid:' + content_id in raw
    read = message_from_bytes(raw, policy=default)
    assert isinstance(read, EmailMessage)
    inline(read)
    assert read["Message-ID"].endswith(f"@{sender.domain}>")
    assert b"=?" not in raw.partition(b"\r\n\r\n")[0]


def test_smaller_versions_omit_first_the_originals_and_then_all_pictures(tmp_path: Path) -> None:
    source = of(picture(), tmp_path / "0.png")
    versions = list(
        mime_message.versions(source, hook="m", sender=SENDER, recipients=TO, subject="x", now=5.0)
    )
    reads = [message_from_bytes(one.as_bytes(), policy=default) for one in versions]
    shapes = [[each.get_content_type() for each in pictures(read)] for read in reads]
    assert shapes == [["image/jpeg", "image/png"], ["image/jpeg"], []]
    assert len({read["Message-ID"] for read in reads}) == 1
    for read in reads:
        assert PICTURE.url in part(read, "plain")
        assert str(tmp_path / "0.png") in part(read, "plain")


def test_a_message_without_pictures_has_one_version() -> None:
    source = notice(media=(PICTURE,))
    versions = mime_message.versions(
        source, hook="m", sender=SENDER, recipients=TO, subject="x", now=5.0
    )
    assert len(list(versions)) == 1


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/0.png", "picture-1.png"),
        ("/data/0", "picture-1"),
        ("/data/0.a b", "picture-1"),
        ('/data/0.p"ng', "picture-1"),
        ("/data/0.éxe", "picture-1"),
        ("s3://shop/0.webp?endpoint_url=https://minio.example", "picture-1.webp"),
    ],
)
def test_the_name_of_an_attachment_is_safe(url: str, name: str) -> None:
    file = File("0", url, "ab" * 32, 1, "image/png")
    assert mime_message.Output(PICTURE, file, "picture-1", "x").attachment == name


def test_a_picture_without_a_file_is_a_link() -> None:
    read = compose(notice(media=(PICTURE,)))
    assert pictures(read) == []
    assert f"Image: {PICTURE.url} (until 2026-01-11 06:10:50 UTC)" in part(read, "plain")
    html = part(read, "html")
    assert 'href="https://cdn.example/0.png?a=1&amp;b=2"' in html
    assert "until 2026-01-11" in html


def test_times_are_in_the_time_zone_of_the_recipients() -> None:
    read = compose(replace(notice(media=(PICTURE,)), zone=ZoneInfo("Europe/Berlin")))
    for kind in ("plain", "html"):
        assert "2025-12-12 07:10:50 CET" in part(read, kind)
        assert "until 2026-01-11 07:10:50 CET" in part(read, kind)
        assert "UTC" not in part(read, kind)


def test_a_link_that_is_not_a_web_address_is_omitted() -> None:
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
def test_text_from_outside_becomes_neither_a_header_nor_a_tag(
    reference: str, reason: str, url: str
) -> None:
    media = (Media(url, "https://cdn.example/" + url),)
    source = notice("failed", media, reference=reference, reason=reason)
    read = compose(source)
    assert set(read.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version",
        "Content-Type",
    }  # fmt: skip
    assert read["To"] == "team@shop.example"
    tags = Tags()
    tags.feed(part(read, "html"))
    assert tags.found <= {*PARTS, "table", "tr", "td", "h1", "a", "img"}


def test_a_message_is_ascii_when_it_is_sent() -> None:
    source = notice(reference="Bestellung für Zoë 🧥")
    message = next(mime_message.versions(
        source, hook="m", sender=mime_message.address("Zoë <zoe@bücher.example>"), recipients=TO,
        subject="{reference}", now=5.0,
    ))  # fmt: skip
    assert message.as_bytes().isascii()
    read = message_from_bytes(message.as_bytes(), policy=default)
    assert read["Subject"] == "Bestellung für Zoë 🧥"
    assert read["From"].addresses[0].domain == "xn--bcher-kva.example"


@pytest.mark.parametrize("text", ["a@b", "A B <a.b+c@d.example>", '"A, B" <a@b.c>', "ü@b.c"])
def test_valid_addresses_are_accepted(text: str) -> None:
    assert mime_message.address(text).domain


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
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        mime_message.address(text)


def test_the_html_names_its_language_and_title_and_its_pictures() -> None:
    file = File("0", "/nowhere/0.png", "ab" * 32, 10, "image/png", b"\xff\xd8")
    told = notice(media=(PICTURE,), reference="ORDER-7").with_files((file,))
    html = part(compose(told), "html")
    assert '<html lang="en"><head>' in html
    assert "<title>ORDER-7 succeeded</title>" in html
    assert 'alt="The result of ORDER-7"' in html
