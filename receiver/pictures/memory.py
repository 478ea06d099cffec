"""Limits the memory that a process uses to decode pictures.

A picture file of a few hundred kB may have 64 million pixels, and its decoder may need up to 24
bytes for each of them. The memory is therefore estimated before a picture is decoded, and pictures
whose estimates together exceed the limit are decoded one after another.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, ImageFile

MAX_MEMORY = 260_000_000  # bytes per process; 8000 by 8000 pixels of 4 bytes are 256 MB
RETURNED = 32_000_000  # bytes; after a larger picture, freed memory is returned to the system
ONE_BYTE_MODES = frozenset({"1", "L", "P"})
# Bytes per pixel of decoders that read a picture as a whole, measured with pictures of 8000 by 8000
# pixels. Decoders of other formats fill the picture row by row, or tile by tile.
WHOLE = {"WEBP": 16, "AVIF": 16, "JPEG2000": 24}
ROWS_PER_STRIP, TILE_WIDTH, TILE_LENGTH = 278, 322, 323  # tags of a TIFF
MAX_REDUCE = 5  # halvings of a JPEG 2000 picture
MAX_HEADER = 65_536  # bytes that are searched for the number of halvings


class TooMuchMemory(Exception):
    """Decoding the picture would take more memory than a process may use for pictures."""


class MemoryLimit:
    """The memory for pictures of one process. Thread-safe."""

    def __init__(self, most: int = MAX_MEMORY) -> None:
        self.most = most
        self._used = 0
        self._turn = threading.Lock()  # prevents small pictures from overtaking a large one
        self._released = threading.Condition()

    @contextmanager
    def reserved(self, amount: int) -> Iterator[None]:
        """Wait until this many bytes are available; they are in use during the block.

        An amount above the limit is reserved alone. A thread reserves only once at a time.
        """
        amount = min(amount, self.most)
        with self._turn, self._released:
            self._released.wait_for(lambda: self._used + amount <= self.most)
            self._used += amount
        try:
            yield
        finally:
            if amount > RETURNED:
                _return_memory()
            with self._released:
                self._used -= amount
                self._released.notify_all()


LIMIT = MemoryLimit()


def _return_memory() -> None:
    """Return freed memory to the system; glibc would keep it for the thread that decoded."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def scale_down(image: Image.Image, side: int, file: BinaryIO) -> None:
    """Let the decoder of a JPEG or JPEG 2000 skip details that a copy of this size lacks.

    The picture stays at least twice as large as the copy. Only large pictures are scaled.
    """
    twice = 2 * side
    if image.format == "JPEG":
        image.draft(image.mode, (twice, twice))
    elif image.format == "JPEG2000":
        halvings = min(image.size).bit_length() - twice.bit_length()
        image.reduce = max(0, min(halvings, _halvings(file), MAX_REDUCE))  # type: ignore[method-assign,assignment]


def needed(image: Image.Image, size: tuple[int, int], file: BinaryIO, *, has_scans: bool) -> int:
    """Return the maximum number of bytes that decoding takes.

    `size` is the size before `scale_down`. `has_scans` says whether a JPEG consists of several
    scans, so that the decoder keeps all of its coefficients.
    """
    pixels = image.width * image.height
    form = image.format or ""
    if form == "JPEG2000":
        reduce = getattr(image, "_reduce", 0)
        return pixels * WHOLE[form] >> (2 * reduce)
    if form in WHOLE:
        return pixels * WHOLE[form]
    amount = pixels * bytes_per_pixel(image.mode)
    if form == "JPEG" and has_scans:
        amount += _coefficients(image, size)
    if form == "TIFF" and isinstance(image, ImageFile.ImageFile):
        amount += _compressed(image, file)
    return amount


def bytes_per_pixel(mode: str) -> int:
    """Return the number of bytes that Pillow stores for a pixel."""
    if mode in ONE_BYTE_MODES:
        return 1
    return 2 if mode.startswith("I;16") else 4


def _coefficients(image: Image.Image, size: tuple[int, int]) -> int:
    """Return the bytes of the coefficients of a JPEG with several scans."""
    layers = getattr(image, "layer", [])  # with the horizontal and vertical sampling factors
    most = max((v for _, v, _, _ in layers), default=1) * max((h for *_, h, _ in layers), default=1)
    samples = size[0] * size[1] * sum(v * h for _, v, h, _ in layers) // max(1, most)
    return 2 * int(samples)


def _compressed(image: ImageFile.ImageFile, file: BinaryIO) -> int:
    """Return the bytes of a compressed TIFF file and of its largest part, both kept in memory."""
    if not image.tile or image.tile[0][0] != "libtiff":
        return 0
    tags = getattr(image, "tag_v2", {})
    width = int(tags.get(TILE_WIDTH, image.width))
    strip = min(int(tags.get(ROWS_PER_STRIP, image.height)), image.height)
    place = file.tell()
    file_size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return file_size + width * int(tags.get(TILE_LENGTH, strip)) * bytes_per_pixel(image.mode)


def _halvings(file: BinaryIO) -> int:
    """Return how often a JPEG 2000 picture can be halved while it is decoded."""
    file.seek(0)
    head = file.read(MAX_HEADER)
    file.seek(0)
    place = head.find(b"\xff\x4f\xff\x51") + 2  # SOC, followed by SIZ
    while 2 <= place < len(head) - 12 and head[place] == 0xFF:
        if head[place + 1] == 0x52:  # COD
            return head[place + 9]
        place += 2 + int.from_bytes(head[place + 2 : place + 4])
    return 0
