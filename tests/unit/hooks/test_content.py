"""The classification of downloaded bytes."""

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
from receiver.pictures import file_types
from tests.support.hook_servers import picture

FORMATS = [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("GIF", "gif")]


def at(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "draft"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_short_picture_of_one_pixel_is_complete(tmp_path: Path, form: str) -> None:
    _, thumbnail = content.inspect(at(tmp_path, picture(form, (1, 1))), "image")
    assert thumbnail is not None


def test_text_instead_of_a_result_is_quoted_without_part_of_a_secret(tmp_path: Path) -> None:
    text = b"x " * 30 + b"aB3" * 14 + b"c"  # the last word is a callback token
    with pytest.raises(ContentFailure, match=r"x …\Z"):
        content.inspect(at(tmp_path, text), "image")


@pytest.mark.parametrize(("fmt", "extension"), FORMATS)
def test_pictures_are_recognised_by_their_content(tmp_path: Path, fmt: str, extension: str) -> None:
    found, thumbnail = content.inspect(at(tmp_path, picture(fmt)), "image")
    assert found.extension == extension
    assert thumbnail is not None


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
def test_an_error_page_is_not_accepted_as_a_result(tmp_path: Path, body: bytes, kind: str) -> None:
    with pytest.raises(ContentFailure):
        content.inspect(at(tmp_path, body), kind)


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        (b"<!DOCTYPE html><title>Sorry</title>", r"\(HTML\), not the image: Sorry\Z"),
        ("<html>\n<h1>Désolé</h1>".encode("utf-16"), r"\(HTML\), .*: Désolé\Z"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><rect/></svg>", r"\(SVG\)"),
        (b"<?xml version='1.0'?>\n<!-- drawn --><svg/>", r"\(SVG\)"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", r"\(XML or HTML\)"),
        (b'\xef\xbb\xbf{"error": {"code": 1015}}', r"\(JSON\)"),
        (b'["expired"]', r"\(JSON\)"),
        (b"error code: 1015", r"\(plain text\), not the image: error code: 1015$"),
        (b"\n\nerror code: 1015\n", r"\(plain text\), not the image: error code: 1015$"),
        ("对不起页面不存在".encode("gbk"), r"\(plain text\)"),
        (b"data:image/png;base64,iVBORw0KGgo" + b"A" * 5000, r"\(plain text\)"),
        (b"x" * 100_000, r": x{80}$"),  # only its beginning
    ],
)
@pytest.mark.parametrize("kind", ["image", "video", "audio", "output"])
def test_text_instead_of_a_result_is_quoted(
    tmp_path: Path, body: bytes, reported: str, kind: str
) -> None:
    with pytest.raises(ContentFailure, match=reported.replace("image", kind)) as caught:
        content.inspect(at(tmp_path, body), kind)
    assert "page of text" in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "body", [b"\0", b"\xff\xd8", b"\x89PNG\r\n\x1a", bytes(63), b"\0\0\0\x20ftypavif"]
)
@pytest.mark.parametrize("kind", ["image", "video", "audio", "output"])
def test_a_body_that_is_far_too_short_is_refused(tmp_path: Path, body: bytes, kind: str) -> None:
    with pytest.raises(ContentFailure, match=f"only {len(body)} bytes long, too short for the"):
        content.inspect(at(tmp_path, body), kind)


def test_content_of_an_unknown_type_is_stored(tmp_path: Path) -> None:
    assert content.inspect(at(tmp_path, b'{"voice": 1}'), "voice") == (file_types.UNKNOWN, None)


def box(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + name + data


FTYP = box(b"ftyp", b"isom\0\0\2\0isomavc1")
HEIC = box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(50))
ODD = {
    "avif": box(b"ftyp", b"avif\0\0\0\0avifmif1") + os.urandom(500),  # no decoder can read it
    "heic": HEIC + box(b"mdat", b"x" * 90),
    "bmp": b"BM" + os.urandom(500),
    "tiff": b"II*\0\x08\0\0\0" + os.urandom(500),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + bytes(500),
    "jxl": b"\xff\x0a" + bytes(500),
    "psd": b"8BPS\0\1" + bytes(500),
    "mp4": FTYP + box(b"moov", bytes(90)) + box(b"mdat", b"x" * 90),
    "mkv": b"\x1a\x45\xdf\xa3\x9fB\x82\x88matroska" + bytes(500),
    "ogg": b"OggS\0\2" + bytes(500),
    "flac": b"fLaC\0\0\0\x22" + bytes(500),
    "pdf": b"%PDF-1.7\n" + b"1 0 obj << >> endobj\n" * 50,
    "zip": b"PK\3\4" + bytes(500),
    "bin": bytes(500),
}  # fmt: skip


@pytest.mark.parametrize("extension", ODD)
@pytest.mark.parametrize("kind", ["image", "video", "audio", "output", "voice"])
def test_a_binary_file_of_any_type_is_stored_unchanged(
    tmp_path: Path, extension: str, kind: str
) -> None:
    path = at(tmp_path, ODD[extension])
    found, thumbnail = content.inspect(path, kind)
    assert (found.extension, thumbnail) == (extension, None)
    assert path.read_bytes() == ODD[extension]


@pytest.mark.parametrize("form", ["AVIF", "BMP", "TIFF", "JPEG2000"])
def test_a_format_that_pillow_reads_has_a_thumbnail(tmp_path: Path, form: str) -> None:
    found, thumbnail = content.inspect(at(tmp_path, picture(form, (640, 480))), "image")
    assert found.extension == {"JPEG2000": "jp2"}.get(form, form.lower())
    assert thumbnail is not None


@pytest.mark.parametrize("form", ["AVIF", "BMP", "TIFF", "JPEG2000"])
def test_a_truncated_picture_of_a_rare_format_is_refused(tmp_path: Path, form: str) -> None:
    whole = picture(form, (640, 480))
    for missing in (2, len(whole) // 10, len(whole) // 2):
        with pytest.raises(ContentFailure, match=r"broken|truncated"):
            content.inspect(at(tmp_path, whole[:-missing]), "image")


@pytest.mark.parametrize(
    "body",
    [
        FTYP + box(b"moov", bytes(90)) + box(b"mdat", bytes(900))[:-1],
        FTYP + box(b"mdat", bytes(900))[:-100],
        FTYP + box(b"free", bytes(90)) + box(b"moov", bytes(900))[:-100],
        FTYP + struct.pack(">I4sQ", 1, b"mdat", 10**12) + bytes(900),  # its length has 64 bits
        HEIC + box(b"mdat", bytes(900))[:500],
        box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"mdat", bytes(900))[:500],
    ],
)  # fmt: skip
def test_a_truncated_video_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(ContentFailure, match=r"file is truncated: its box '\w+' should end at"):
        content.inspect(at(tmp_path, body), "video")


@pytest.mark.parametrize(
    "body",
    [
        FTYP + struct.pack(">I4s", 0, b"mdat") + bytes(900),  # it extends to the end of the file
        FTYP + struct.pack(">I4sQ", 1, b"mdat", 916) + bytes(900),
        FTYP + box(b"mdat", bytes(900)) + b"trailing bytes",
        FTYP + box(b"mdat", bytes(900)) + box(b"free", bytes(900))[:100],
        FTYP + os.urandom(900),
        FTYP + box(b"free", b"") * 2000,
    ],
)
def test_a_video_with_trailing_data_is_stored(tmp_path: Path, body: bytes) -> None:
    assert content.inspect(at(tmp_path, body), "video") == (file_types.MP4, None)


def test_a_video_of_empty_boxes_takes_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "MAX_BOXES", 10)
    body = FTYP + box(b"free", b"") * 20 + box(b"mdat", bytes(900))[:-1]
    assert content.inspect(at(tmp_path, body), "video") == (file_types.MP4, None)


@pytest.mark.parametrize("form", ["BMP", "TIFF", "JPEG2000"])
def test_a_large_file_of_a_rare_format_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(content, "MAX_PARTLY_DECODED", 100)
    assert content.inspect(at(tmp_path, picture(form)), "image")[1] is None


def test_a_decompression_bomb_in_a_rare_format_is_refused(tmp_path: Path) -> None:
    header = b"BM" + struct.pack(
        "<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 9000, 9000, 1, 24, 0, 0, 0, 0, 0, 0
    )
    with pytest.raises(PermanentFailure, match="pixels"):
        content.inspect(at(tmp_path, header + bytes(500)), "image")


@pytest.mark.parametrize(("fmt", "extension"), FORMATS)
def test_a_truncated_picture_is_refused(tmp_path: Path, fmt: str, extension: str) -> None:
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
    """Return a small PNG that declares this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_001, 10_000, 60_000])
def test_a_decompression_bomb_is_a_permanent_failure(tmp_path: Path, side: int) -> None:
    with pytest.raises(PermanentFailure, match="pixels"):
        content.inspect(at(tmp_path, bomb(side)), "image")


def tiled(side: int) -> bytes:
    """Return a TIFF of 16 by 16 pixels whose only tile has this side length."""
    pixels = zlib.compress(bytes(side * side))
    size = {256: 16, 257: 16, 322: side, 323: side}
    tags = {**size, 258: 8, 259: 8, 262: 1, 277: 1, 324: 8, 325: len(pixels)}
    entries = [struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags)]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


def test_a_small_picture_in_an_enormous_tile_is_stored_but_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "MAX_PIXELS", 4096)
    found = [content.inspect(at(tmp_path, tiled(side)), "image") for side in (64, 80)]
    assert [type_.extension for type_, _ in found] == ["tiff", "tiff"]
    assert [thumbnail is not None for _, thumbnail in found] == [True, False]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_every_picture_has_a_small_jpeg_thumbnail(tmp_path: Path, mode: str) -> None:
    image = Image.effect_noise((750, 450), 200).convert("RGB")
    image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    out = io.BytesIO()
    image.save(out, "JPEG" if mode == "CMYK" else "PNG")
    _, thumbnail = content.inspect(at(tmp_path, out.getvalue()), "image")
    assert thumbnail is not None
    assert len(thumbnail) <= 40_000
    with Image.open(io.BytesIO(thumbnail)) as small:
        assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (320, 192))


def test_a_thumbnail_of_a_noisy_picture_is_small_too(tmp_path: Path) -> None:
    noise = os.urandom(320 * 320 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (320, 320), noise).save(out, "PNG")
    _, thumbnail = content.inspect(at(tmp_path, out.getvalue()), "image")
    assert thumbnail is not None
    assert len(thumbnail) <= 40_000


def test_a_thumbnail_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    _, thumbnail = content.inspect(at(tmp_path, picture("JPEG", (640, 320), exif=exif)), "image")
    assert thumbnail is not None
    with Image.open(io.BytesIO(thumbnail)) as small:
        assert small.size == (160, 320)
        assert not small.getexif()


def test_a_thumbnail_does_not_contain_a_long_comment(tmp_path: Path) -> None:
    """Pillow copies the comment into every JPEG, which would then always be too large."""
    whole = picture("JPEG", (640, 480), comment=b"taken at Example Street " * 2_500)
    _, thumbnail = content.inspect(at(tmp_path, whole), "image")
    assert thumbnail is not None
    assert b"Example Street" not in thumbnail


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_a_thumbnail_of_a_transparent_picture_has_a_white_background(
    tmp_path: Path, mode: str
) -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    out = io.BytesIO()
    clear.convert(mode).save(out, "PNG", **({"transparency": 0} if mode == "P" else {}))
    _, thumbnail = content.inspect(at(tmp_path, out.getvalue()), "image")
    assert thumbnail is not None
    with Image.open(io.BytesIO(thumbnail)) as small:
        assert small.getpixel((20, 20)) == (255, 255, 255)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    data=st.sampled_from([picture(fmt) for fmt, _ in FORMATS]),
    damage=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=6),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")  # Pillow warns about some damage and continues
def test_a_damaged_picture_causes_no_unexpected_error(
    tmp_path: Path, data: bytes, damage: list[tuple[int, int]]
) -> None:
    broken = bytearray(data)
    for place, byte in damage:
        broken[place % len(broken)] = byte
    with suppress(DeliveryFailure):
        content.inspect(at(tmp_path, bytes(broken)), "image")
