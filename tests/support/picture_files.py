"""Pictures with the metadata and defects that cameras and programs produce."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from typing import Any

from PIL import Image, ImageCms

PNG_START = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    """Return a chunk of a PNG, with this checksum instead of the correct one."""
    found = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", found)


def with_chunks(png: bytes, *chunks: bytes, at_the_end: bool = False) -> bytes:
    """Return the PNG with more chunks, after its header or before its end."""
    place = len(png) - 12 if at_the_end else len(PNG_START) + 25
    return png[:place] + b"".join(chunks) + png[place:]


def chunks_of(png: bytes) -> Iterable[tuple[bytes, bytes]]:
    place = len(PNG_START)
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += length + 12


def with_wrong_checksum(png: bytes, kind: bytes) -> bytes:
    """Return the PNG with a wrong checksum in all its chunks of this kind."""
    return PNG_START + b"".join(
        chunk(name, data, 1 if name == kind else None) for name, data in chunks_of(png)
    )


def png_of(width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """Return a PNG of raw pixels, for kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[row * stride : (row + 1) * stride] for row in range(height))
    return (
        PNG_START
        + chunk(b"IHDR", header)
        + b"".join(chunks)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def segment(marker: int, data: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Return the JPEG with more segments before its first one."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def mpo(size: tuple[int, int] = (320, 320), colour: str = "red") -> bytes:
    """Return a camera's file of a picture with a preview: two JPEGs in one file."""
    first, second = Image.new("RGB", size, colour), Image.new("RGB", size, "blue")
    return encoded(first, "MPO", save_all=True, append_images=[second])


def exif(orientation: int, *, order: str = "<", more: int = 0) -> bytes:
    """Return EXIF data with this orientation after some other tags, as a camera writes them."""
    tags = [(0x8000 + number, 3, 1, 7) for number in range(more)] + [(0x0112, 3, 1, orientation)]
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = b"".join(struct.pack(f"{order}HHIHxx", *tag) for tag in tags)
    return mark + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4)


def srgb_profile(**replaced: tuple[float, float, float]) -> bytes:
    """Return a profile like sRGB's with other primaries: rXYZ, gXYZ and bXYZ, relative to D50."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(132, 132 + 12 * count, 12):
        name, offset, _ = struct.unpack_from(">4sII", profile, entry)
        if name.decode() in replaced:
            numbers = [round(value * 65536) for value in replaced[name.decode()]]
            struct.pack_into(">3i", profile, offset + 8, *numbers)
    return bytes(profile)


def brighter() -> bytes:
    """Return a profile like sRGB's in which 128 is as bright as 160."""
    profile = bytearray(srgb_profile())
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(132, 132 + 12 * count, 12):
        name, offset, _ = struct.unpack_from(">4sII", profile, entry)
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            assert profile[offset : offset + 4] == b"para"
            struct.pack_into(">i", profile, offset + 12, round(1.6 * 65536))  # instead of 2.4
    return bytes(profile)


def display_p3() -> bytes:
    """Return the profile of Apple's screens and cameras, which has more colours than sRGB."""
    return srgb_profile(
        rXYZ=(0.51512, 0.24120, -0.00105),
        gXYZ=(0.29198, 0.69225, 0.04189),
        bXYZ=(0.15710, 0.06657, 0.78407),
    )


def red_is_blue() -> bytes:
    """Return a profile that exchanges red and blue, so that its effect cannot be overlooked."""
    return srgb_profile(rXYZ=(0.14307, 0.06061, 0.71393), bXYZ=(0.43604, 0.22249, 0.01392))
