"""Small copies of pictures, and what Pillow's readers raise for a broken one: nearly anything."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image, ImageOps

# Of the first six, and the last, it is documented; the others were met. What is none of them is a
# mistake of ours.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    RuntimeError,
    TypeError,
    zlib.error,
)
THUMBNAIL_SIDE = 320
THUMBNAIL_BYTES = 40_000
PREVIEW_SIDE = 1120  # twice the width at which an e-mail shows it: sharp on dense screens, too
PREVIEW_BYTES = 250_000
SCALABLE = frozenset({"L", "LA", "RGB", "RGBA", "CMYK"})  # not colours by number, nor 16 bits
QUALITIES = (82, 70, 55, 40, 25)


def thumbnail(image: Image.Image) -> bytes:
    """A JPEG of at most 40 kB, upright, on white, with nothing in it but the picture.

    The image is changed on the way. Raises BROKEN.
    """
    return _jpeg(image, THUMBNAIL_SIDE, THUMBNAIL_BYTES)


def preview(image: Image.Image) -> bytes:
    """Return a JPEG of at most 250 kB that every mail client can display, otherwise a `thumbnail`.

    The image is changed on the way. Raises BROKEN.
    """
    return _jpeg(image, PREVIEW_SIDE, PREVIEW_BYTES)


def _jpeg(image: Image.Image, side: int, limit: int) -> bytes:
    image.load()  # in full, where making it smaller would read a JPEG coarsely
    ImageOps.exif_transpose(image, in_place=True)
    small = _on_white(image, side)
    small.info.clear()  # a comment would be written into every copy, however long it is
    return _small(small, limit)


def _on_white(image: Image.Image, side: int) -> Image.Image:
    if image.mode not in SCALABLE:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((side, side))
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    white = Image.new("RGB", clear.size, "white")
    white.paste(clear, mask=clear.getchannel("A"))
    return white


def _small(image: Image.Image, limit: int) -> bytes:
    while True:
        for quality in QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, optimize=True)
            if out.tell() <= limit:
                return out.getvalue()
        image = image.reduce(2)
