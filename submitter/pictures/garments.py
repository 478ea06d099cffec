"""Prepares the garments: one as it is, or an upper and a lower one merged into one picture.

Source of the combinations that succeed: Kling API reference, virtual try-on v1-5 (seen 2026-11).
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from PIL import Image

from receiver.pictures import thumbnails
from submitter.errors import InputError
from submitter.pictures import images
from submitter.providers import Provider

# A word before `://` is the scheme of a URL, and a single letter is a Windows drive.
LABEL = re.compile(r"(upper|lower|dress):(?!//)(.*)", re.IGNORECASE | re.DOTALL)
MAX_SIDE = 4096  # px; our own limit: results have less detail
# As Base64, which is a third longer, this is still within Kling's limit of 10 MB.
MAX_BYTES = images.MAX_BYTES * 3 // 4
QUALITIES = (95, 90, 80, 70)  # of JPEG, best first


class Kind(StrEnum):
    """The part of the body that a garment covers."""

    UPPER = "upper"
    LOWER = "lower"
    DRESS = "dress"


@dataclass(frozen=True, slots=True)
class Garment:
    """The path or URL of a picture, and its kind if it has a label."""

    picture: str
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class ClothPicture:
    """The picture for the request, a URL or raw Base64, and the garments merged into it."""

    cloth: str
    merged: tuple[bytes, ...] = ()


def select_garments(
    given: Sequence[str], adapter: Provider, model: str | None
) -> tuple[Garment, ...]:
    """Return the garment, or the upper and the lower garment in this order.

    Raises InputError for combinations that the provider would charge for, although they fail.
    """
    garments = [_parse_label(text) for text in given]
    if len(garments) == 1:
        return (garments[0],)
    if len(garments) != 2:
        raise InputError(
            "cloth", f"{len(garments)} garments were given; give one, or two to combine"
        )
    kinds = sorted((garment.kind or "unlabelled" for garment in garments), reverse=True)
    if kinds != [Kind.UPPER, Kind.LOWER]:
        raise InputError(
            "cloth",
            f"{kinds[0]} and {kinds[1]} cannot be combined; give one upper:PICTURE and one "
            "lower:PICTURE",
        )
    _check_combining(adapter, model)
    return tuple(sorted(garments, key=lambda garment: garment.kind is Kind.LOWER))


def prepare_garments(
    garments: Sequence[Garment],
    folder: Path | None = None,
    fetch: Callable[[str, str], bytes] = images.fetch,
) -> ClothPicture:
    """Return the picture of the garments from `select_garments`. Raises InputError."""
    pictures = [images.resolve_path(garment.picture, folder) for garment in garments]
    if len(pictures) == 1:
        return ClothPicture(images.prepare("cloth", pictures[0]))
    upper, lower = (images.load("cloth", picture, fetch) for picture in pictures)
    return combine_garments(upper, lower)


def combine_garments(upper: bytes, lower: bytes) -> ClothPicture:
    """Return both garments as one picture. Raises InputError."""
    try:
        sheet = merged(upper, lower)
    except thumbnails.BROKEN as error:
        reason = thumbnails.reason(error)
        raise InputError(
            "cloth", f"the pictures cannot be merged ({reason}); save them again"
        ) from None
    return ClothPicture(base64.b64encode(sheet).decode("ascii"), (upper, lower))


def merged(upper: bytes, lower: bytes) -> bytes:
    """Return a white JPEG with the upper garment above the lower one, both equally wide.

    Its sides have 300 to 4096 px, and it is within the provider's size limit.
    """
    max_side = MAX_SIDE
    while True:
        sheet = _sheet(upper, lower, max_side)
        for quality in QUALITIES:
            out = io.BytesIO()
            sheet.save(out, "JPEG", quality=quality)
            if out.tell() <= MAX_BYTES:
                return out.getvalue()
        max_side //= 2


def _parse_label(text: str) -> Garment:
    match = LABEL.fullmatch(text)
    if not match:
        return Garment(text)
    if not match[2]:
        raise InputError("cloth", f"{text!r} contains no path or URL after the label")
    return Garment(match[2], Kind(match[1].lower()))


def _check_combining(adapter: Provider, model: str | None) -> None:
    if model in adapter.combining:
        return
    if adapter.combining:
        advice = f"use model {' or '.join(sorted(adapter.combining))}, or give one garment"
        raise InputError("cloth", f"{model} accepts only one garment; {advice}")
    raise InputError(
        "cloth", f"{adapter.name} accepts only one garment; use another provider for two"
    )


def _sheet(upper: bytes, lower: bytes, max_side: int) -> Image.Image:
    sizes = [_size(content) for content in (upper, lower)]
    width = max(width for width, _ in sizes)
    heights = [height * width / own_width for own_width, height in sizes]
    scale = min(1.0, max_side / width, max_side / sum(heights))
    scaled_width = max(1, round(width * scale))
    scaled_heights = [max(1, round(height * scale)) for height in heights]
    # The short side of a very long or very wide sheet is padded with white.
    sides = [max(side, images.MIN_SIDE) for side in (scaled_width, sum(scaled_heights))]
    sheet = Image.new("RGB", sides, "white")
    left = (sheet.width - scaled_width) // 2
    top = (sheet.height - sum(scaled_heights)) // 2
    for content, height in zip((upper, lower), scaled_heights, strict=True):
        sheet.paste(_on_white(content, (scaled_width, height)), (left, top))
        top += height
    return sheet


def _size(content: bytes) -> tuple[int, int]:
    with thumbnails.opened(io.BytesIO(content), images.FORMATS) as image:
        return thumbnails.upright_size(image)


def _on_white(content: bytes, size: tuple[int, int]) -> Image.Image:
    with thumbnails.opened(io.BytesIO(content), images.FORMATS) as image:
        return thumbnails.flattened(image, size)
