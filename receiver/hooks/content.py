"""Checks the content of downloaded files, and makes their thumbnails."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from receiver.errors import ContentFailure, PermanentFailure
from receiver.observability.logger import Logger
from receiver.pictures.file_types import DECODED, HEAD, PARTLY_DECODED, FileType, detect, text_in
from receiver.text import html_page
from receiver.text.display import one_line, redacted

MAX_PIXELS = 64_000_000  # 8000 by 8000; larger pictures are not expected
MIN_BYTES = 64  # videos, sound files and pictures that are not decoded are longer
# Kinds of output that are never text. Adapters use "output" for an unknown kind.
BINARY_KINDS = frozenset({"image", "video", "audio", "output"})
MAX_PARTLY_DECODED = 100_000_000  # bytes; Pillow may read the whole file into memory
TRUNCATED = re.compile("truncated|broken data stream", re.IGNORECASE)  # in Pillow's messages
# Boxes of MP4, QuickTime, HEIF and JPEG 2000: if one is truncated, the file is unusable.
BOXES = frozenset({b"ftyp", b"moov", b"moof", b"mdat", b"meta", b"jP  ", b"jp2c"})
MAX_BOXES = 100_000
log = Logger()
QUOTED = 80  # characters of a text that was returned in place of a result


def inspect(path: Path, kind: str) -> tuple[FileType, bytes | None]:
    """Return the type of the file and, if it is a picture that can be decoded, a thumbnail.

    `kind` is the kind of output that the provider names. A binary file of an unknown type is
    accepted. Raises ContentFailure if the file cannot be the result, such as an error page, and
    PermanentFailure for a decompression bomb.
    """
    size = path.stat().st_size
    if not size:
        raise ContentFailure("the result is empty")
    with path.open("rb") as file:
        head = file.read(HEAD)
        found = detect(head)
        if kind in BINARY_KINDS:
            _check_binary(head, kind)
        if head[4:8] in BOXES and size >= MIN_BYTES:
            _check_boxes(file, size, found)
        small = thumbnail(file, found)
    if small is None and size < MIN_BYTES and kind in BINARY_KINDS:
        raise ContentFailure(f"the result is only {size} bytes long, too short for the {kind}")
    return found, small


def thumbnail(file: BinaryIO, found: FileType) -> bytes | None:
    """Return a JPEG of at most 40 kB, upright and on white, after decoding the whole picture.

    Returns None for a format, or a variant of one, that Pillow does not read, and for a picture
    whose decoding takes too much memory. Raises ContentFailure for a broken picture, and
    PermanentFailure for a decompression bomb.
    """
    from receiver.pictures import thumbnails  # noqa: PLC0415 - Pillow is slow; `hooks list` needs none
    from receiver.pictures.memory import TooMuchMemory  # noqa: PLC0415 - the same

    form = DECODED.get(found) or PARTLY_DECODED.get(found)
    if form is None or (found in PARTLY_DECODED and file.seek(0, os.SEEK_END) > MAX_PARTLY_DECODED):
        return None
    is_opened = False
    try:
        with thumbnails.opened(file, (form,), MAX_PIXELS, thumbnails.THUMBNAIL_SIDE) as image:
            is_opened = True
            return thumbnails.thumbnail(image)
    except TooMuchMemory:
        log.warning("a picture has no thumbnail: decoding it takes too much memory", format=form)
        return None
    except thumbnails.BOMB:
        raise PermanentFailure(f"the picture has more than {MAX_PIXELS} pixels") from None
    except thumbnails.BROKEN as error:
        reason = thumbnails.reason(error)
        if found in DECODED or (is_opened and TRUNCATED.search(reason)):
            raise ContentFailure(f"the {form} picture is broken: {reason}") from error
        return None


def _check_binary(head: bytes, kind: str) -> None:
    """Raise ContentFailure if the file is text."""
    text = text_in(head)
    if text:
        shown = one_line(html_page.readable(text))
        quoted = redacted(shown)[:QUOTED]  # only a whole secret is recognised
        raise ContentFailure(
            f"the result is a page of text ({_format(text)}), not the {kind}: {quoted}"
        )


def _format(text: str) -> str:
    """Return the name of the text's format for an error message."""
    start = text.lstrip().lower()
    if "<svg" in start:
        return "SVG"
    if start.startswith(("<!doctype html", "<html")):
        return "HTML"
    if start.startswith("<"):
        return "XML or HTML"
    return "JSON" if start.startswith(("{", "[")) else "plain text"


def _check_boxes(file: BinaryIO, size: int, found: FileType) -> None:
    """Check that no box of the file is longer than the rest of the file."""
    place = 0
    for _ in range(MAX_BOXES):
        file.seek(place)
        head = file.read(16)
        length, name = int.from_bytes(head[:4]), head[4:8]
        if length == 1:  # the length follows the name, as 64 bits
            length = int.from_bytes(head[8:])
        end = place + length
        if name in BOXES and end > size:
            raise ContentFailure(
                f"the {found.extension} file is truncated: its box {name.decode()!r} should end "
                f"at byte {end}, but the file has {size}"
            )
        if length < 8 or end >= size:  # the last box, whose length may be 0, or not a box
            return
        place = end
