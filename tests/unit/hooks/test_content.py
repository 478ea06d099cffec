"""What downloaded bytes are."""

from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from receiver.errors import ContentFailure, DeliveryFailure, PermanentFailure
from receiver.hooks import content
from tests.support.hook_servers import picture

FORMATS = [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("GIF", "gif")]


def at(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "draft"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("fmt", "extension"), FORMATS)
def test_pictures_are_told_by_their_content(tmp_path: Path, fmt: str, extension: str) -> None:
    found, thumbnail = content.inspect(at(tmp_path, picture(fmt)), "image")
    assert found.extension == extension
    assert thumbnail is not None


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0", content.MP4),
        (b"\0\0\0\x14ftypqt  \0\0\2\0", content.MOV),
        (b"\0\0\0\x20ftypavif\0\0\0\0", content.UNKNOWN),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\x82\x84webm", content.WEBM),
        (b"\x1a\x45\xdf\xa3\x9fB\x82\x88matroska", content.UNKNOWN),
        (b"ID3\4\0\0\0\0\0\0", content.MP3),
        (b"\xff\xfb\x90\x64", content.MP3),
        (b"\xff\xf3\x90\x64", content.MP3),
        (b"\xff\xfeh\0i\0", content.UNKNOWN),  # text in UTF-16
        (b"\xff", content.UNKNOWN),
        (b"RIFF\x24\0\0\0WAVEfmt ", content.WAV),
        (b"RIFF\x24\0\0\0AVI LIST", content.UNKNOWN),
        (b"glTF\2\0\0\0", content.UNKNOWN),
        (b"", content.UNKNOWN),
    ],
)  # fmt: skip
def test_other_media_are_told_by_their_first_bytes(head: bytes, expected: content.Content) -> None:
    assert content.sniff(head) == expected


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<!DOCTYPE html><title>Sorry</title>", "image"),
        (b"\xef\xbb\xbf\n <html>", "video"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "audio"),
        (b'{"error": "expired"}', "video"),
        (b"not found", "image"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "image"),
        (b"", "image"),
        (b"", "model"),
    ],
)
def test_an_error_page_is_not_taken_for_the_result(tmp_path: Path, body: bytes, kind: str) -> None:
    with pytest.raises(ContentFailure):
        content.inspect(at(tmp_path, body), kind)


def test_what_nobody_knows_is_kept_as_it_is(tmp_path: Path) -> None:
    assert content.inspect(at(tmp_path, b'{"voice": 1}'), "voice") == (content.UNKNOWN, None)


@pytest.mark.parametrize(("fmt", "extension"), FORMATS)
def test_a_picture_that_was_cut_short_is_refused(tmp_path: Path, fmt: str, extension: str) -> None:
    whole = picture(fmt, (400, 400))
    with pytest.raises(ContentFailure, match="broken"):
        content.inspect(at(tmp_path, whole[: len(whole) // 2]), "image")
    assert extension


def test_a_picture_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    whole = bytearray(picture())
    whole[whole.index(b"IEND") - 5] ^= 1  # the last byte of the data's checksum
    with pytest.raises(ContentFailure, match="broken"):
        content.inspect(at(tmp_path, bytes(whole)), "image")


def bomb(side: int) -> bytes:
    """A PNG that says it is this large, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_001, 10_000, 60_000])
def test_a_decompression_bomb_is_refused_for_good(tmp_path: Path, side: int) -> None:
    with pytest.raises(PermanentFailure, match="pixels"):
        content.inspect(at(tmp_path, bomb(side)), "image")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_a_thumbnail_is_a_small_jpeg_whatever_the_picture(tmp_path: Path, mode: str) -> None:
    image = Image.effect_noise((1500, 900), 200).convert("RGB")
    image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    out = io.BytesIO()
    image.save(out, "JPEG" if mode == "CMYK" else "PNG")
    _, thumbnail = content.inspect(at(tmp_path, out.getvalue()), "image")
    assert thumbnail is not None
    assert len(thumbnail) <= 40_000
    with Image.open(io.BytesIO(thumbnail)) as small:
        assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (320, 192))


def test_a_thumbnail_is_small_even_where_nothing_can_be_left_out(tmp_path: Path) -> None:
    noise = os.urandom(320 * 320 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (320, 320), noise).save(out, "PNG")
    _, thumbnail = content.inspect(at(tmp_path, out.getvalue()), "image")
    assert thumbnail is not None
    assert len(thumbnail) <= 40_000


def test_a_thumbnail_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    _, thumbnail = content.inspect(at(tmp_path, picture("JPEG", (640, 320), exif=exif)), "image")
    assert thumbnail is not None
    with Image.open(io.BytesIO(thumbnail)) as small:
        assert small.size == (160, 320)
        assert not small.getexif()


def test_a_long_comment_is_not_in_the_thumbnail(tmp_path: Path) -> None:
    """Pillow writes it into every copy, which could then never become small."""
    whole = picture("JPEG", (640, 480), comment=b"taken at Example Street " * 2_500)
    _, thumbnail = content.inspect(at(tmp_path, whole), "image")
    assert thumbnail is not None
    assert b"Example Street" not in thumbnail


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_a_thumbnail_of_a_transparent_picture_is_on_white(tmp_path: Path, mode: str) -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    out = io.BytesIO()
    clear.convert(mode).save(out, "PNG", **({"transparency": 0} if mode == "P" else {}))
    _, thumbnail = content.inspect(at(tmp_path, out.getvalue()), "image")
    assert thumbnail is not None
    with Image.open(io.BytesIO(thumbnail)) as small:
        assert small.getpixel((20, 20)) == (255, 255, 255)


@settings(
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    data=st.sampled_from([picture(fmt) for fmt, _ in FORMATS]),
    damage=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=6),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")  # Pillow warns of some damage and goes on
def test_a_damaged_picture_is_no_surprise(
    tmp_path: Path, data: bytes, damage: list[tuple[int, int]]
) -> None:
    broken = bytearray(data)
    for place, byte in damage:
        broken[place % len(broken)] = byte
    with suppress(DeliveryFailure):
        content.inspect(at(tmp_path, bytes(broken)), "image")
