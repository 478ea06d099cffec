"""One garment as it is, or an upper and a lower one merged onto one white picture.

Which combinations succeed: Kling API reference, virtual try-on v1-5 (seen 2026-11).
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

# A word before `://` is a URL's scheme, whatever it is, and one letter is a Windows drive.
LABEL = re.compile(r"(upper|lower|dress):(?!//)(.*)", re.IGNORECASE | re.DOTALL)
MOST_SIDE = 4096  # px, ours: more detail than the result has
# Grown by a third as Base64 it is still within Kling's 10 MB, however they are counted.
MOST_BYTES = images.MOST_BYTES * 3 // 4
QUALITIES = (95, 90, 80, 70)  # of JPEG, best first


class Kind(StrEnum):
    """What part of the body a garment covers."""

    UPPER = "upper"
    LOWER = "lower"
    DRESS = "dress"


@dataclass(frozen=True, slots=True)
class Garment:
    """A picture, as a path or a URL, and what is on it if that was said."""

    picture: str
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class ClothPicture:
    """What goes into the request, a URL or raw Base64, and the pictures that it was made of."""

    cloth: str
    merged: tuple[bytes, ...] = ()


def select_garments(given: Sequence[str], room: Provider, model: str | None) -> tuple[Garment, ...]:
    """The garment, or the upper and the lower one in this order; raises InputError for what the
    provider would take the money for and then fail.
    """
    found = [_labelled(text) for text in given]
    if len(found) == 1:
        return (found[0],)
    if len(found) != 2:
        raise InputError("cloth", f"{len(found)} garments were given; give one, or two to combine")
    kinds = sorted((garment.kind or "unlabelled" for garment in found), reverse=True)
    if kinds != [Kind.UPPER, Kind.LOWER]:
        raise InputError(
            "cloth",
            f"{kinds[0]} and {kinds[1]} cannot be combined; give one upper:PICTURE and one "
            "lower:PICTURE",
        )
    _check_combining(room, model)
    return tuple(sorted(found, key=lambda garment: garment.kind is Kind.LOWER))


def prepare_garments(
    garments: Sequence[Garment],
    folder: Path | None = None,
    fetch: Callable[[str, str], bytes] = images.fetch,
) -> ClothPicture:
    """What is sent for these garments, as `chosen`. Raises InputError."""
    given = [images.resolve_path(garment.picture, folder) for garment in garments]
    if len(given) == 1:
        return ClothPicture(images.prepare("cloth", given[0]))
    upper, lower = (images.load("cloth", located, fetch) for located in given)
    return combine_garments(upper, lower)


def combine_garments(upper: bytes, lower: bytes) -> ClothPicture:
    """Return both garments as one picture. Raises InputError."""
    try:
        sheet = merged(upper, lower)
    except thumbnails.BROKEN as error:
        why = thumbnails.reason(error)
        raise InputError(
            "cloth", f"the pictures cannot be merged ({why}); save them again"
        ) from None
    return ClothPicture(base64.b64encode(sheet).decode("ascii"), (upper, lower))


def merged(upper: bytes, lower: bytes) -> bytes:
    """One white JPEG, the upper garment above the lower one, both as wide as the wider of them.

    Its sides are 300 to 4096 px, and it is small enough to be sent.
    """
    most = MOST_SIDE
    while True:
        sheet = _sheet(upper, lower, most)
        for quality in QUALITIES:
            out = io.BytesIO()
            sheet.save(out, "JPEG", quality=quality)
            if out.tell() <= MOST_BYTES:
                return out.getvalue()
        most //= 2


def _labelled(text: str) -> Garment:
    match = LABEL.fullmatch(text)
    if not match:
        return Garment(text)
    if not match[2]:
        raise InputError("cloth", f"{text!r} names no picture")
    return Garment(match[2], Kind(match[1].lower()))


def _check_combining(room: Provider, model: str | None) -> None:
    if model in room.combining:
        return
    if room.combining:
        advice = f"use model {' or '.join(sorted(room.combining))}, or give one garment"
        raise InputError("cloth", f"{model} takes one garment only; {advice}")
    raise InputError("cloth", f"{room.name} takes one garment only; use another provider for two")


def _sheet(upper: bytes, lower: bytes, most: int) -> Image.Image:
    sizes = [_size(content) for content in (upper, lower)]
    width = max(width for width, _ in sizes)
    heights = [height * width / own_width for own_width, height in sizes]
    shrunk = min(1.0, most / width, most / sum(heights))
    size = (max(1, round(width * shrunk)), [max(1, round(h * shrunk)) for h in heights])
    # Of a very long or wide one, the short side is filled up with white.
    sheet = Image.new(
        "RGB", [max(side, images.LEAST_SIDE) for side in (size[0], sum(size[1]))], "white"
    )
    top = (sheet.height - sum(size[1])) // 2
    for content, height in zip((upper, lower), size[1], strict=True):
        sheet.paste(_on_white(content, (size[0], height)), ((sheet.width - size[0]) // 2, top))
        top += height
    return sheet


def _size(content: bytes) -> tuple[int, int]:
    with thumbnails.opened(io.BytesIO(content), images.FORMATS) as image:
        return thumbnails.upright_size(image)


def _on_white(content: bytes, size: tuple[int, int]) -> Image.Image:
    with thumbnails.opened(io.BytesIO(content), images.FORMATS) as image:
        return thumbnails.flattened(image, size)
