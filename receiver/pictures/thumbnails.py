"""Opens pictures regardless of their metadata, and makes small copies of them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO, cast

from PIL import Image, ImageCms, UnidentifiedImageError

from receiver.pictures import memory
from receiver.pictures.metadata import MAX_PROFILE, essentials, orientation

# Exceptions of Pillow's decoders for a broken picture. Any other exception is a bug of ours.
DOCUMENTED = (OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error, zlib.error)
OBSERVED = (ArithmeticError, AssertionError, AttributeError, RuntimeError, TypeError)
BROKEN = (*DOCUMENTED, *OBSERVED)
BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
THUMBNAIL_SIDE = 320
THUMBNAIL_BYTES = 40_000
PREVIEW_SIDE = 1120  # twice the width in an e-mail, so that it is sharp on high-resolution screens
PREVIEW_BYTES = 250_000
QUALITIES = (82, 70, 55, 40, 25)

MAX_REASON = 200  # characters

UPRIGHT = {  # by the EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BAND = 1_000_000  # pixels that are converted at a time
LARGE = 4_000_000  # pixels; the decoder scales larger pictures down, if it can
SIDEWAYS = range(5, 9)  # the orientations that swap width and height
SCALABLE = frozenset({"L", "LA", "RGB", "RGBA", "CMYK"})  # 8 bits per channel, no palette


def reason(error: BaseException) -> str:
    """Return one line about the damage of a picture that raised one of BROKEN."""
    if isinstance(error, UnidentifiedImageError):  # its text contains a memory address
        return "its header cannot be read"
    text = " ".join(str(error).split())[:MAX_REASON]
    return text if isinstance(error, (OSError, SyntaxError, ValueError)) and text else "bad data"


@contextmanager
def opened(
    file: BinaryIO,
    formats: tuple[str, ...],
    max_pixels: int | None = None,
    side: int | None = None,
) -> Iterator[Image.Image]:
    """Open the picture in a file, in one of Pillow's `formats`, regardless of its metadata.

    Of a PNG or JPEG, Pillow reads only the parts that affect the pixels, so that a comment, a
    broken profile or a camera's second picture cannot make it fail. The checksums of a PNG are
    verified. Raises BROKEN, and Pillow's errors for decompression bombs; the error for more than
    `max_pixels` is raised before anything is decoded.

    Decoding waits until enough memory is available, see `memory`. With `side`, the picture is only
    used for a copy of this size: it is decoded at a smaller scale where its format allows
    that, and TooMuchMemory is raised for a picture that needs more than a process may use.
    """
    found = essentials(file)
    with _metadata_warnings_ignored(), Image.open(found.pixels, formats=formats) as image:
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise Image.DecompressionBombError
        if max_pixels is not None and _tile_size(image) > max_pixels:
            raise ValueError(f"its tiles have more than {max_pixels} pixels each")
        if found.pixels is not file:
            image.info["exif"], image.info["icc_profile"] = found.exif, found.profile
        size = image.size
        if side is not None and image.width * image.height > LARGE:
            memory.scale_down(image, side, found.pixels)
        amount = memory.needed(image, size, found.pixels, has_scans=found.has_scans)
        if side is not None and amount > memory.LIMIT.most:
            raise memory.TooMuchMemory
        with memory.LIMIT.reserved(amount):
            try:
                yield image
            finally:
                image.close()  # frees its pixels, before another thread reserves their memory


def _tile_size(image: Image.Image) -> int:
    """Return the pixels of a TIFF's tile, all of which are decoded even for a small picture."""
    tags = getattr(image, "tag_v2", {})
    width, length = memory.TILE_WIDTH, memory.TILE_LENGTH
    return int(tags.get(width, 0) * tags.get(length, 0))


@contextmanager
def _metadata_warnings_ignored() -> Iterator[None]:
    """Ignore Pillow's warnings about metadata, but not those about decompression bombs.

    Not thread-safe: at worst, a warning of another thread is ignored or shown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def thumbnail(image: Image.Image) -> bytes:
    """Return a JPEG of at most 40 kB, upright, on white, in sRGB, without metadata.

    Raises BROKEN.
    """
    return _jpeg(image, THUMBNAIL_SIDE, THUMBNAIL_BYTES)


def preview(image: Image.Image) -> bytes:
    """Return a JPEG of at most 250 kB that every mail client can display; see `thumbnail`.

    Raises BROKEN.
    """
    return _jpeg(image, PREVIEW_SIDE, PREVIEW_BYTES)


def _jpeg(image: Image.Image, side: int, limit: int) -> bytes:
    image.load()
    width, height = upright_size(image)
    scale = min(1, side / width, side / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return _small(flattened(image, size), limit)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height after applying the EXIF orientation."""
    width, height = image.size
    return (height, width) if _orientation(image) in SIDEWAYS else (width, height)


def flattened(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the picture in `size`, upright, on white, in sRGB, without metadata. Raises BROKEN."""
    turned, profile = _orientation(image), image.info.get("icc_profile")
    lying = size[::-1] if turned in SIDEWAYS else size
    small = _resized(image, lying)
    if turned in UPRIGHT:
        small = small.transpose(UPRIGHT[turned])
    if small.mode not in ("LA", "RGBA"):
        return _in_srgb(small, profile)
    opaque = _in_srgb(small.convert(small.mode[:-1]), profile)
    white = Image.new("RGB", size, "white")
    white.paste(opaque, mask=small.getchannel("A"))
    return white


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the picture in `size`, with 8 bits per channel and no palette.

    A large picture is converted and reduced in bands, so that there is no second copy of it.
    """
    image.load()
    factor = max(1, min(image.width // size[0], image.height // size[1]) // 2)
    rows = max(1, BAND // image.width // factor) * factor
    bands = [
        (0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)
    ]
    white = _white(image, bands) if image.mode.startswith(("I", "F")) else None
    reduced: Image.Image | None = None
    for band in bands:
        part = _in_eight_bits(image.crop(band), white).reduce(factor)
        if reduced is None:
            whole = -(-image.width // factor), -(-image.height // factor)
            reduced = Image.new(part.mode, whole)
        reduced.paste(part, (0, band[1] // factor))
    assert reduced is not None  # noqa: S101 - a picture has at least one row
    exact = (0, 0, image.width / factor, image.height / factor)
    return reduced.resize(size, box=exact)


def _in_eight_bits(image: Image.Image, white: float | None) -> Image.Image:
    """Return the picture with 8 bits per channel and no palette, in a mode that can be resized.

    `white` is the value of white in a picture of mode I or F.
    """
    if white is not None:  # `convert` would clip large values instead of scaling them
        scale = 255 / white
        return _wide(image).point(lambda value: value * scale + 0).convert("L")
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    return image if image.mode in SCALABLE else image.convert("RGB")


def _wide(image: Image.Image) -> Image.Image:
    """Return a picture of mode I;16 in mode I, whose values can be changed."""
    return image.convert("I") if image.mode.startswith("I") else image


def _white(image: Image.Image, bands: Sequence[tuple[int, int, int, int]]) -> float:
    """Return the value of white in a greyscale picture of mode I or F, which does not define it."""
    brightest = max(
        cast("tuple[float, float]", _wide(image.crop(band)).getextrema())[1] for band in bands
    )
    usual = (65535,) if image.mode.startswith("I") else (1, 255, 65535)
    return next((white for white in usual if brightest <= white), brightest)


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return a picture of mode L, RGB or CMYK as sRGB; an unusable profile is ignored."""
    converted = None
    if profile and len(profile) <= MAX_PROFILE:
        # ImportError: Pillow may be built without LittleCMS.
        with suppress(ImageCms.PyCMSError, ImportError, *BROKEN):
            its_profile = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            is_grey = image.mode == "L" and its_profile.profile.xcolor_space == "RGB "
            source = image.convert("RGB") if is_grey else image
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(source, its_profile, srgb, outputMode="RGB")
    found = converted or image.convert("RGB")
    found.info.clear()  # otherwise every copy would contain the comment, even a long one
    return found


def _small(image: Image.Image, limit: int) -> bytes:
    while True:
        for quality in QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, optimize=True)
            if out.tell() <= limit:
                return out.getvalue()
        image = image.reduce(2)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; Pillow already applies it when it loads a TIFF."""
    return orientation(image.info.get("exif") or b"")
