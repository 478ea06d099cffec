"""The accepted pictures; their content is checked before anything is sent."""

import base64
import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from submitter.errors import InputError
from submitter.pictures import images
from tests.support.picture_files import mpo


@cache
def picture(form: str = "PNG", size: tuple[int, int] = (320, 300), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(out, form, compress_level=1)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that declares a huge size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", picture("PNG")),
        ("a.jpg", picture("JPEG")),
        ("wrong-extension.gif", picture("JPEG")),
        ("no-extension", picture("PNG")),
        ("smallest.png", picture("PNG", (300, 300))),
        ("grey.png", picture("PNG", mode="L")),
        ("alpha.png", picture("PNG", mode="RGBA")),
        ("cmyk.jpg", picture("JPEG", mode="CMYK")),
        ("camera.jpg", mpo()),
    ],
)
def test_a_valid_picture_is_sent_as_base64_of_its_unchanged_bytes(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    sent = images.prepare("human", str(path))
    assert sent.isascii()
    assert not sent.startswith("data:")
    assert "\n" not in sent
    assert base64.b64decode(sent, validate=True) == content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "not a JPEG or PNG picture"),
        (picture("PNG", (299, 400)), "299 x 400 px; both sides"),
        (picture("JPEG", (400, 299)), "400 x 299 px; both sides"),
        (picture("GIF", mode="P"), "GIF picture; save it as JPEG or PNG"),
        (picture("WEBP"), "WEBP picture"),
        (picture("BMP"), "BMP picture"),
        (picture("TIFF"), "TIFF picture; save it as JPEG or PNG"),
        (partial(picture, "AVIF"), "AVIF picture; save it as JPEG or PNG"),
        (partial(picture, "JPEG2000"), "JP2 picture; save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90), "HEIC picture; save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(90), "HEIC picture; .* nothing else"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(90), "file of type MP4, not a JPEG or PNG"),
        (b"%PDF-1.7\n" + bytes(90), "file of type PDF, not a JPEG or PNG picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PNG picture: it is text"),
        ("<html>Désolé".encode("utf-16"), "PNG picture: it is text"),
        (bytes(range(256)), "PNG picture: its format is unknown"),
        (picture("PNG")[:-2000], "damaged or truncated"),
        (picture("JPEG")[:-2000], "damaged or truncated"),
        (picture("PNG")[:60], "damaged or truncated"),
        (bomb(9_000, 9_000), "use at most"),  # below Pillow's own limits, above ours
        (bomb(10_000, 10_000), "more than"),  # Pillow warns
        (bomb(60_000, 60_000), "more than"),  # Pillow refuses
        (picture("JPEG") + b"\0" * images.MAX_BYTES, "larger than 10 MB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_error_for_an_unusable_picture_contains_the_reason(
    tmp_path: Path, content: bytes | Callable[[], bytes], complaint: str
) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(InputError, match=complaint) as caught:
        images.prepare("cloth", str(path))
    assert caught.value.field == "cloth"


def test_a_picture_of_exactly_10_mb_is_accepted() -> None:
    content = picture("JPEG")
    images.check("human", content + b"\0" * (images.MAX_BYTES - len(content)))


def test_a_path_that_is_not_a_readable_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, complaint in [
        (tmp_path, "not a file"),
        (pipe, "not a file"),  # and opening it does not wait for a writer
        (tmp_path / "missing.png", "does not exist"),
        ("a\0b", "cannot be read"),
        ("x" * 5000, "cannot be read|Base64"),
        ("", "not a file|does not exist"),
    ]:
        with pytest.raises(InputError, match=complaint):
            images.prepare("human", str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(picture())
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        images.prepare("human", str(path))


def test_base64_is_distinguished_from_a_path() -> None:
    for content in (picture("JPEG"), picture("PNG")):
        text = base64.b64encode(content).decode()
        with pytest.raises(InputError, match="is Base64; give the path"):
            images.prepare("human", text)
        with pytest.raises(InputError, match="data: URL"):
            images.prepare("human", f"data:image/png;base64,{text}")


def test_a_url_is_passed_on_unchanged() -> None:
    for url in ("https://x.example/a.jpg?sig=%2Fa+b", "http://[2001:db8::1]:8080/a"):
        assert images.prepare("human", url) == url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x.example/a.jpg",
        "file:///etc/passwd",
        "https://",
        "https:///a.jpg",
        "https://x.example/a b.jpg",
        "https://x.example/a\nb.jpg",
        "https://[::1/a.jpg",
        "https://x.example:99999/a.jpg",
    ],
)
def test_anything_but_an_http_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="not an http or https URL"):
        images.prepare("human", url)


@given(
    form=st.sampled_from(["PNG", "JPEG"]),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8)), max_size=6),
    cut=st.integers(0, 10**6),
)
def test_a_damaged_picture_is_accepted_or_refused_without_an_unexpected_error(
    form: str, edits: list[tuple[int, bytes]], cut: int
) -> None:
    content = bytearray(SAMPLES[form])
    for position, patch in edits:
        start = position % len(content)
        content[start : start + len(patch)] = patch
    with contextlib.suppress(InputError):
        images.check("human", bytes(content[: max(1, cut % (2 * len(content)))]))


SAMPLES = {"PNG": picture("PNG", (300, 300), "P"), "JPEG": picture("JPEG", (300, 300))}
