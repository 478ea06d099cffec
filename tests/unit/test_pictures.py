"""Metadata never causes a picture to be refused, and a small copy looks like the original."""

from __future__ import annotations

import base64
import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from receiver.errors import ContentFailure
from receiver.hooks.content import inspect
from receiver.pictures import metadata, thumbnails
from submitter.errors import InputError
from submitter.pictures import garments, images, inputs
from submitter.pictures.inputs import TryOnInputs
from tests.support.picture_files import (
    PNG_START,
    brighter,
    chunk,
    display_p3,
    encoded,
    exif,
    mpo,
    png_of,
    red_is_blue,
    segment,
    with_chunks,
    with_segments,
    with_wrong_checksum,
)

SIZE = (320, 310)
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
SHIRT = Image.new("RGB", SIZE, RED)
PNG, JPEG = encoded(SHIRT, "PNG"), encoded(SHIRT, "JPEG", quality=95)
MEGABYTES = 3 * 2**20  # more than Pillow inflates
LARGE = zlib.compress(b"secret " * (MEGABYTES // 7))
RANDOM = zlib.compress(os.urandom(2 * 2**20), 1)
XMP = b"http://ns.adobe.com/xap/1.0/\0"

PNGS = {
    "large zTXt": with_chunks(PNG, chunk(b"zTXt", b"Comment\0\0" + LARGE)),
    "large random zTXt": with_chunks(PNG, chunk(b"zTXt", b"Comment\0\0" + RANDOM)),
    "large iTXt": with_chunks(PNG, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE)),
    "large iTXt that is not compressed": with_chunks(
        PNG, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"x" * MEGABYTES)
    ),
    "large tEXt": with_chunks(PNG, chunk(b"tEXt", b"parameters\0" + b"x" * MEGABYTES)),
    "many texts": with_chunks(
        PNG, *[chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 900_000))] * 80
    ),
    "large text at the end": with_chunks(
        PNG, chunk(b"zTXt", b"Comment\0\0" + LARGE), at_the_end=True
    ),
    "large iCCP": with_chunks(PNG, chunk(b"iCCP", b"Profile\0\0" + LARGE)),
    "iCCP that is not a profile": with_chunks(
        PNG, chunk(b"iCCP", b"Profile\0\0" + zlib.compress(b"nothing of the kind"))
    ),
    "iCCP that is not compressed": with_chunks(PNG, chunk(b"iCCP", b"Profile\0\0" + b"x" * 500)),
    "iCCP that is truncated": with_chunks(
        PNG, chunk(b"iCCP", b"Profile\0\0" + zlib.compress(display_p3())[:200])
    ),
    "iCCP with a decompression bomb": with_chunks(
        PNG, chunk(b"iCCP", b"Profile\0\0" + zlib.compress(bytes(2**24)))
    ),
    "iCCP without a name": with_chunks(PNG, chunk(b"iCCP", b"")),
    "text with an unknown compression": with_chunks(PNG, chunk(b"zTXt", b"Comment\0\x09abc")),
    "text that is not compressed": with_chunks(PNG, chunk(b"zTXt", b"Comment\0\0abc")),
    "text without a keyword": with_chunks(PNG, chunk(b"tEXt", b"\0")),
    "iTXt that is truncated": with_chunks(PNG, chunk(b"iTXt", b"a\0")),
    "broken eXIf": with_chunks(PNG, chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff")),
    "huge eXIf": with_chunks(PNG, chunk(b"eXIf", exif(6) + bytes(MEGABYTES))),
    "short pHYs": with_chunks(PNG, chunk(b"pHYs", b"\0")),
    "short gAMA": with_chunks(PNG, chunk(b"gAMA", b"")),
    "short cHRM": with_chunks(PNG, chunk(b"cHRM", b"\0\0")),
    "short sRGB": with_chunks(PNG, chunk(b"sRGB", b"")),
    "short tIME": with_chunks(PNG, chunk(b"tIME", b"\0")),
    "short acTL": with_chunks(PNG, chunk(b"acTL", b"\0\0")),
    "acTL without frames": with_chunks(PNG, chunk(b"acTL", struct.pack(">II", 0, 0))),
    "fcTL out of order": with_chunks(
        PNG, chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", bytes(26))
    ),
    "long tRNS": with_chunks(PNG, chunk(b"tRNS", bytes(5000))),
    "unknown ancillary chunk": with_chunks(PNG, chunk(b"prVt", b"x" * 1000)),
    "trailing bytes": PNG + b"\r\n<!-- served by a cache -->",
    "a second picture after the first": PNG + PNG,
    **{
        f"wrong checksum in {kind.decode()}": with_wrong_checksum(
            with_chunks(PNG, chunk(kind, data)), kind
        )
        for kind, data in {
            b"tEXt": b"Comment\0text",
            b"zTXt": b"Comment\0\0" + zlib.compress(b"text"),
            b"iTXt": b"Comment\0\0\0\0\0text",
            b"iCCP": b"Profile\0\0" + zlib.compress(display_p3()),
            b"eXIf": exif(1),
            b"pHYs": bytes(9),
            b"gAMA": bytes(4),
            b"cHRM": bytes(32),
            b"sRGB": b"\0",
            b"tIME": bytes(7),
            b"bKGD": bytes(6),
            b"tRNS": bytes(6),
            b"prVt": b"private",
        }.items()
    },
}
PROFILE = b"ICC_PROFILE\0"
JPEGS = {
    "a camera's MPO": mpo(SIZE),
    "MPO with a broken index": mpo(SIZE).replace(b"MPF\0II*\0", b"MPF\0II*\1"),
    "MPO without its second picture": mpo(SIZE)[: mpo(SIZE).index(b"\xff\xd8", 2)],
    "huge EXIF": with_segments(JPEG, segment(0xE1, b"Exif\0\0" + exif(1, more=5000))),
    "EXIF in several segments": with_segments(
        JPEG, *[segment(0xE1, b"Exif\0\0" + exif(1) + bytes(60_000))] * 40
    ),
    "broken EXIF": with_segments(JPEG, segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")),
    "EXIF that refers to itself": with_segments(
        JPEG, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0")
    ),
    "EXIF with a resolution of zero": with_segments(
        JPEG[:2] + JPEG[20:],  # without the JFIF segment, whose resolution Pillow would use
        segment(
            0xE1,
            b"Exif\0\0II*\0\x08\0\0\0\1\0\x1a\1\5\0\1\0\0\0\x1a\0\0\0" + bytes(12),
        ),
    ),
    "empty EXIF": with_segments(JPEG, segment(0xE1, b"Exif\0\0")),
    "large XMP": with_segments(JPEG, *[segment(0xE1, XMP + b"x" * 65_000)] * 40),
    "XMP that is not text": with_segments(JPEG, segment(0xE1, XMP + bytes(range(256)))),
    "long comments": with_segments(JPEG, *[segment(0xFE, b"x" * 65_000)] * 20),
    "short JFIF": with_segments(JPEG, segment(0xE0, b"JFIF\0")),
    "short Adobe": with_segments(JPEG, segment(0xEE, b"Adobe")),
    "segments before JFIF": with_segments(
        JPEG, segment(0xED, b"Photoshop 3.0\08BIM"), segment(0xE3, b"x"), segment(0xEF, b"")
    ),
    "broken Photoshop": with_segments(JPEG, segment(0xED, b"Photoshop 3.0\08BIM\4\4\xff")),
    "profile with invalid content": with_segments(
        JPEG, segment(0xE2, PROFILE + b"\1\1" + b"x" * 3000)
    ),
    "profile without a number": with_segments(JPEG, segment(0xE2, PROFILE)),
    "profile with a part missing": with_segments(
        JPEG, segment(0xE2, PROFILE + b"\2\3" + display_p3()[:400])
    ),
    "large profile": with_segments(
        JPEG, *[segment(0xE2, PROFILE + bytes([n, 99]) + b"x" * 65_000) for n in range(1, 100)]
    ),
    "short FlashPix segment": with_segments(JPEG, segment(0xE2, b"FPXR\0")),
    "bytes between the segments": JPEG[:2] + b"\xff" * 50 + JPEG[2:],
    "trailing bytes": JPEG + b"\0" * 5000,
    "a video after the picture": JPEG + b"\0\0\0\x18ftypmp42" + bytes(5000),
    "progressive": encoded(SHIRT, "JPEG", progressive=True, quality=95),
    "restart markers": encoded(SHIRT, "JPEG", restart_marker_blocks=2, quality=95),
}
OTHERS = {
    "WebP with broken metadata": encoded(
        SHIRT, "WEBP", lossless=True, exif=b"Exif\0\0nonsense", xmp=b"x" * 99, icc_profile=b"none"
    ),
    "WebP with trailing bytes": encoded(SHIRT, "WEBP", lossless=True) + b"\0" * 99,
    "GIF with a long comment": encoded(SHIRT, "GIF", comment=b"x" * 70_000),
    "GIF with trailing bytes": encoded(SHIRT, "GIF") + b"\0" * 99,
    "AVIF with broken metadata": encoded(SHIRT, "AVIF", icc_profile=b"none", xmp=b"x"),
}
INPUTS = {f"PNG, {name}": png for name, png in PNGS.items()} | {
    f"JPEG, {name}": jpeg for name, jpeg in JPEGS.items()
}


def colour(small: bytes, place: tuple[int, int] = (100, 100)) -> tuple[int, ...]:
    with Image.open(io.BytesIO(small)) as image:
        found = image.convert("RGB").getpixel(place)
    assert isinstance(found, tuple)
    return found


def is_near(found: tuple[int, ...], expected: tuple[int, ...], by: int = 6) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, expected, strict=True))


def thumbnail_of(content: bytes, tmp_path: Path) -> bytes:
    path = tmp_path / "draft"
    path.write_bytes(content)
    _, small = inspect(path, "image")
    assert small is not None
    return small


@pytest.mark.parametrize("name", INPUTS | OTHERS)
def test_metadata_does_not_cause_a_result_to_be_refused(name: str, tmp_path: Path) -> None:
    small = thumbnail_of((INPUTS | OTHERS)[name], tmp_path)
    assert is_near(colour(small), RED, 12)
    assert b"secret" not in small


@pytest.mark.parametrize("name", INPUTS)
def test_metadata_does_not_cause_an_input_to_be_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(INPUTS[name])
    assert images.load("human", str(path)) == INPUTS[name]  # sent unchanged


@pytest.mark.parametrize(
    "name", ["PNG, large zTXt", "PNG, iCCP with a decompression bomb", "JPEG, a camera's MPO"]
)
def test_pictures_with_such_metadata_can_be_merged(name: str) -> None:
    sheet = garments.merged(INPUTS[name], PNG)
    assert is_near(colour(sheet, (100, 100)), RED)


def test_small_copies_of_pictures_with_such_metadata_can_be_stored() -> None:
    for content in INPUTS.values():
        sent = base64.b64encode(content).decode()
        small = inputs.thumbnails(TryOnInputs(sent, sent))
        assert set(small) == {"human", "cloth"}
        assert is_near(colour(small["human"]), RED, 12)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (with_wrong_checksum(PNG, b"IDAT"), "wrong checksum in its chunk IDAT"),
        (with_wrong_checksum(PNG, b"IHDR"), "wrong checksum in its chunk IHDR"),
        (with_wrong_checksum(encoded(SHIRT.convert("P"), "PNG"), b"PLTE"), "in its chunk PLTE"),
        (PNG[:-40], "truncated in its chunk IDAT"),
        (PNG[:-12], "ends before its last chunk"),
        (PNG[:-4], "truncated in its chunk IEND"),
        (PNG[:33], "ends before its last chunk"),
        (PNG_START + b"\0\0\0\0\0\0\0\0", "broken chunk at byte 8"),
        (PNG_START + chunk(b"IEND", b""), "header cannot be read"),
        (JPEG[:-2], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:4], "header cannot be read|truncated"),
        (JPEG[:2] + segment(0xE1, b"x" * 300)[:100], "header cannot be read|truncated"),
        (JPEG[:2] + b"\xff" * 200_000, "more than 100000 segments"),
        (JPEG[:2] + segment(0xE5, b"") * 100_001 + JPEG[2:], "more than 100000 segments"),
    ],
)
def test_damage_to_the_picture_itself_is_described(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "draft"
    path.write_bytes(content)
    with pytest.raises(ContentFailure, match=f"picture is broken: .*({problem})"):
        inspect(path, "image")
    with pytest.raises(InputError, match=f"damaged or truncated picture .*({problem})"):
        images.check("human", content)


def test_a_decompression_bomb_in_the_metadata_is_not_decompressed(tmp_path: Path) -> None:
    """Each chunk contains a hundred megabytes of zeros, compressed to a hundredth."""
    bomb = zlib.compress(bytes(100 * 2**20), 9)
    path = tmp_path / "draft"
    path.write_bytes(
        with_chunks(
            PNG,
            chunk(b"iCCP", b"Profile\0\0" + bomb),
            chunk(b"zTXt", b"Comment\0\0" + bomb),
            chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        )
    )
    tracemalloc.start()
    try:
        inspect(path, "image")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 40 * 2**20


def test_a_png_with_too_many_chunks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "MAX_CHUNKS", 50)
    with (
        pytest.raises(metadata.BrokenPicture, match="more than 50 chunks"),
        thumbnails.opened(io.BytesIO(with_chunks(PNG, *[chunk(b"tEXt", b"")] * 60)), ("PNG",)),
    ):
        pass


# -- how a small copy looks


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_is_upright(form: str, orientation: int, tmp_path: Path) -> None:
    upright = Image.new("RGB", (40, 80), "white")
    upright.paste(RED, (0, 0, 20, 40))  # the top left corner
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = upright.transpose(back[orientation]) if orientation > 1 else upright
    tags = Image.Exif()
    tags[0x0112] = orientation
    small = thumbnail_of(encoded(turned, form, exif=tags), tmp_path)
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (40, 80)
    assert is_near(colour(small, (10, 20)), RED, 20)
    assert is_near(colour(small, (30, 70)), WHITE, 20)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("more", [0, 300])
def test_the_orientation_is_found_among_other_tags(order: str, more: int) -> None:
    assert metadata.orientation(b"Exif\0\0" + exif(6, order=order, more=more)) == 6


@pytest.mark.parametrize(
    "data", [b"", b"II", b"II*\0", exif(6)[:14], b"XX*\0\x08\0\0\0\1\0", exif(99)]
)
def test_an_invalid_orientation_is_ignored(data: bytes, tmp_path: Path) -> None:
    small = thumbnail_of(with_segments(JPEG, segment(0xE1, b"Exif\0\0" + data)), tmp_path)
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == SIZE


def grey_16(value: int, *chunks: bytes) -> bytes:
    return png_of(320, 320, 16, 0, struct.pack(">H", value) * 320 * 320, *chunks)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (255, 1), (8192, 32), (32768, 128), (65535, 255)]
)
def test_grey_with_16_bits_keeps_its_brightness(value: int, expected: int, tmp_path: Path) -> None:
    assert is_near(colour(thumbnail_of(grey_16(value), tmp_path)), (expected,) * 3, 1)
    assert is_near(colour(garments.merged(grey_16(value), PNG)), (expected,) * 3, 1)


RED_ONLY = chunk(b"PLTE", bytes([255, 0, 0]))
INK = Image.new("CMYK", (40, 40), (0, 255, 255, 0))


def clear(*channels: int) -> bytes:
    """Return the value of the transparent colour."""
    return chunk(b"tRNS", struct.pack(f">{len(channels)}H", *channels))


def of_mode(mode: str, value: float, form: str = "TIFF") -> bytes:
    return encoded(Image.new(mode, (40, 40), value), form)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (of_mode("I;16", 32768), (128,) * 3),
        (of_mode("I;16B", 32768), (128,) * 3),
        (of_mode("I", 32768), (128,) * 3),
        (of_mode("I", 2**30), WHITE),  # nothing is brighter
        (of_mode("F", 0.5), (128,) * 3),
        (of_mode("F", 128.0), (128,) * 3),
        (of_mode("1", 1, "PNG"), WHITE),
        (of_mode("L", 128, "BMP"), (128,) * 3),
        (png_of(40, 40, 16, 2, struct.pack(">3H", 65535, 32768, 0) * 1600), (255, 128, 0)),
        (png_of(40, 40, 16, 6, struct.pack(">4H", 65535, 32768, 0, 65535) * 1600), (255, 128, 0)),
        (png_of(40, 40, 16, 6, struct.pack(">4H", 65535, 0, 0, 0) * 1600), WHITE),
        (png_of(40, 40, 16, 4, struct.pack(">2H", 32768, 65535) * 1600), (128,) * 3),
        (png_of(40, 40, 16, 4, struct.pack(">2H", 0, 0) * 1600), WHITE),
        (png_of(40, 40, 8, 4, bytes([0, 0]) * 1600), WHITE),
        (png_of(40, 40, 8, 4, bytes([0, 128]) * 1600), (127,) * 3),
        (png_of(40, 40, 8, 6, bytes([255, 0, 0, 128]) * 1600), (255, 127, 127)),
        (png_of(40, 40, 8, 2, bytes([9, 8, 7]) * 1600, clear(9, 8, 7)), WHITE),
        (png_of(40, 40, 8, 0, bytes([9]) * 1600, clear(9)), WHITE),
        (grey_16(500, clear(500)), (2,) * 3),
        (png_of(40, 40, 16, 2, bytes([1, 244] * 3) * 1600, clear(500, 500, 500)), None),
        (png_of(40, 40, 8, 3, bytes(1600), RED_ONLY, chunk(b"tRNS", b"\0")), WHITE),
        (png_of(40, 40, 8, 3, bytes(1600), RED_ONLY), RED),
        (png_of(40, 40, 1, 0, bytes([255] * 5) * 40), WHITE),
        (png_of(40, 40, 2, 0, bytes([0b01010101] * 10) * 40), (85,) * 3),
        (encoded(INK, "JPEG"), RED),
        (encoded(INK, "JPEG", icc_profile=display_p3()), RED),
        (encoded(Image.new("L", (40, 40), 128), "JPEG", icc_profile=brighter()), (161,) * 3),
        (encoded(Image.new("L", (40, 40), 128), "PNG", icc_profile=brighter()), (161,) * 3),
        (encoded(Image.new("LA", (40, 40), (128, 255)), "PNG", icc_profile=brighter()), (161,) * 3),
        (encoded(Image.new("L", (40, 40), 128), "JPEG", icc_profile=b"none"), (128,) * 3),
    ],
)  # fmt: skip
def test_every_pixel_format_has_the_right_colours(
    content: bytes, expected: tuple[int, ...] | None, tmp_path: Path
) -> None:
    found = colour(thumbnail_of(content, tmp_path), (20, 20))
    assert expected is None or is_near(found, expected)


def animated(form: str) -> bytes:
    first, second = Image.new("RGB", (40, 40), RED), Image.new("RGB", (40, 40), BLUE)
    return encoded(first, form, save_all=True, append_images=[second])


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF"])
def test_the_first_frame_of_an_animation_is_shown(form: str, tmp_path: Path) -> None:
    assert is_near(colour(thumbnail_of(animated(form), tmp_path), (20, 20)), RED, 12)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF"])
def test_a_truncated_animation_is_refused(form: str, tmp_path: Path) -> None:
    """It is refused even if the frame that is shown is complete."""
    whole = animated(form)
    for length in (len(whole) * 9 // 10, len(whole) - 3):
        with pytest.raises(ContentFailure, match=r"truncated|broken"):
            thumbnail_of(whole[:length], tmp_path)


def test_a_gif_without_its_last_byte_is_complete(tmp_path: Path) -> None:
    assert is_near(colour(thumbnail_of(animated("GIF")[:-1], tmp_path), (20, 20)), RED)


def p3_in_srgb() -> tuple[int, ...]:
    """Return the sRGB colour to which Pillow converts (200, 100, 50) in Display P3."""
    pixel = Image.new("RGB", (1, 1), (200, 100, 50))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(display_p3()))
    converted = ImageCms.profileToProfile(pixel, profile, ImageCms.createProfile("sRGB"))
    assert converted is not None
    found = converted.getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_wide_gamut_colours_are_converted(form: str, tmp_path: Path) -> None:
    expected = p3_in_srgb()
    assert not is_near(expected, (200, 100, 50), 8)
    content = encoded(Image.new("RGB", SIZE, (200, 100, 50)), form, icc_profile=display_p3())
    assert is_near(colour(thumbnail_of(content, tmp_path)), expected, 5)
    if form in images.FORMATS:
        assert is_near(colour(garments.merged(content, PNG)), expected, 5)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_profile_is_applied_in_every_mode(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", SIZE, RED).convert(mode)
    content = encoded(image, "PNG", icc_profile=red_is_blue())
    assert is_near(colour(thumbnail_of(content, tmp_path)), BLUE, 12)
    with Image.open(io.BytesIO(thumbnail_of(content, tmp_path))) as small:
        assert "icc_profile" not in small.info


def test_a_large_colour_profile_is_applied_and_one_that_is_too_large_is_ignored(
    tmp_path: Path,
) -> None:
    """Pillow decompresses at most 1 MB."""
    for size, expected in ((2 * 2**20, BLUE), (metadata.MAX_PROFILE + 1, RED)):
        profile = red_is_blue()
        profile += bytes(size - len(profile))
        content = with_chunks(PNG, chunk(b"iCCP", b"Profile\0\0" + zlib.compress(profile)))
        assert is_near(colour(thumbnail_of(content, tmp_path)), expected, 12)


def test_a_colour_profile_in_several_parts_is_assembled_in_order(tmp_path: Path) -> None:
    profile = red_is_blue()
    parts = [profile[:300], profile[300:]]
    segments = [segment(0xE2, PROFILE + bytes([n, 2]) + parts[n - 1]) for n in (2, 1)]
    assert is_near(colour(thumbnail_of(with_segments(JPEG, *segments), tmp_path)), BLUE, 12)


def test_a_preview_is_larger_than_a_thumbnail_and_has_the_same_colours() -> None:
    content = encoded(Image.new("RGB", (2000, 1000), RED), "PNG", icc_profile=red_is_blue())
    with thumbnails.opened(io.BytesIO(content), ("PNG",)) as image:
        large = thumbnails.preview(image)
    assert len(large) <= thumbnails.PREVIEW_BYTES
    assert is_near(colour(large), BLUE, 12)
    with Image.open(io.BytesIO(large)) as image:
        assert image.size == (1120, 560)
