"""Bodies that CDNs, cameras and programs return in place of a plain PNG."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

TEXT_SIZE = 3 * 2**20  # bytes of a comment, more than most decoders decompress
PNG_HEADER = 33  # bytes of a PNG's signature and its first chunk


def in_format(picture: bytes, form: str) -> bytes:
    """Return the PNG, converted to another of Pillow's formats."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(picture), formats=("PNG",)) as image:
        image.convert("RGB").save(out, form)
    return out.getvalue()


def heic() -> bytes:
    """Return a file with the HEIC signature that no installed decoder can read."""
    brands = b"heic" + bytes(4) + b"mif1heic"
    return _box(b"ftyp", brands) + _box(b"meta", bytes(100)) + _box(b"mdat", bytes(4000))


def of_unknown_format() -> bytes:
    return bytes(range(256)) * 40


def with_two_pictures(picture: bytes) -> bytes:
    """Return a camera's JPEG (MPO): a preview follows the picture in the same file."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(picture), formats=("PNG",)) as image:
        whole = image.convert("RGB")
        whole.save(out, "MPO", save_all=True, append_images=[whole.reduce(4)])
    return out.getvalue()


def with_metadata(picture: bytes) -> bytes:
    """Return the PNG with a huge comment, an invalid profile and a text with a wrong checksum."""
    huge = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(TEXT_SIZE)))
    profile = _chunk(b"iCCP", b"Profile\0\0" + zlib.compress(b"none"))
    text = _chunk(b"tEXt", b"Software\0a program")[:-4] + bytes(4)
    return picture[:PNG_HEADER] + huge + profile + text + picture[PNG_HEADER:]


def _box(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + name + data


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
