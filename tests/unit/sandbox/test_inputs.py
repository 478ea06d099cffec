"""Input pictures have to respect Kling's limits, and each refusal names the limit."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable

import pytest

from sandbox.providers import input_pictures
from sandbox.providers.input_pictures import GARMENT, PERSON, InputError, PictureSource

PNG = b"\x89PNG\r\n\x1a\n"
SOURCE = PictureSource("http://127.0.0.1:8900")
Make = Callable[..., bytes]


def refusal(value: str) -> str:
    with pytest.raises(InputError) as refused:
        SOURCE.read(value, PERSON)
    return str(refused.value)


def chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_of_the_smallest_size_is_accepted(make_picture: Make, kind: str) -> None:
    content = make_picture(300, 300, kind)
    assert SOURCE.read(encoded(content), PERSON) == content


@pytest.mark.parametrize("size", [(299, 300), (300, 299)])
def test_one_short_side_is_refused(make_picture: Make, size: tuple[int, int]) -> None:
    assert "both sides must be at least 300 px" in refusal(encoded(make_picture(*size)))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP"])
def test_another_format_is_refused(make_picture: Make, kind: str) -> None:
    assert "not a JPEG or PNG" in refusal(encoded(make_picture(300, 300, kind)))


def test_a_data_prefix_is_refused(make_picture: Make) -> None:
    value = "data:image/png;base64," + encoded(make_picture(300, 300))
    assert "without the `data:` prefix" in refusal(value)


def test_invalid_base64_is_refused() -> None:
    assert "nor valid Base64" in refusal("not base64!")
    assert "nor valid Base64" in refusal("ünïcode")


def test_more_than_10_mb_is_refused(make_picture: Make) -> None:
    input_pictures.check(make_picture(300, 300).ljust(input_pictures.MOST_BYTES, b"\0"))
    with pytest.raises(InputError, match="larger than 10 MB"):
        input_pictures.check(make_picture(300, 300).ljust(input_pictures.MOST_BYTES + 1, b"\0"))


@pytest.mark.parametrize("side", [9_000, 14_000, 60_000])
def test_a_decompression_bomb_is_refused_without_decoding(side: int) -> None:
    size = struct.pack(">II5B", side, side, 8, 2, 0, 0, 0)
    assert "too many" in refusal(encoded(PNG + chunk(b"IHDR", size) + chunk(b"IDAT", b"")))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8901/x.png",
        "http://10.0.0.1/x.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/x.png",
        "http://0.0.0.0:8900/x.png",
        "https://127.0.0.1:8900/x.png",
    ],
)
def test_a_private_address_is_fetched_only_with_the_option(url: str) -> None:
    assert refusal(url) == (
        "could not be fetched: its host has no public address; start the sandbox with "
        "`sandbox serve --allow-private` to fetch it"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/model.jpg",
        "http://www.example.org/a/person.png?x=1",
        "https://shop.example:8443/person",
        "https://p1-kling.klingai.com/kcdn/cdn-kcdn112452/kling-qa-test/tryon-human.webp",
        "https://pub-582b7213209642b9b995c96c95a30381.r2.dev/vt_top.jpeg",
        "https://storage.googleapis.com/imagesai.appypie.com/testing/00034_00.jpg",
    ],
)
def test_the_sandbox_has_a_picture_for_each_sample_of_the_vendors(url: str) -> None:
    assert SOURCE.read(url, PERSON) == input_pictures.sample(PERSON)
    assert SOURCE.read(url, GARMENT) == input_pictures.sample(GARMENT)


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:99999999/"])
def test_a_broken_url_is_refused(url: str) -> None:
    assert refusal(url) == "could not be fetched: its URL is invalid"


@pytest.mark.parametrize("url", ["http://notexample.invalid/", "http://example.com.invalid/"])
def test_a_host_that_does_not_exist_is_refused_without_a_class_name(url: str) -> None:
    assert refusal(url) == "could not be fetched: its host cannot be reached"
