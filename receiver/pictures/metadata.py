"""Separates the pixels of a PNG or JPEG file from metadata that may make Pillow fail.

Before it decodes any pixel, Pillow decompresses texts and profiles, searches a camera's metadata
for a second picture, and reads all EXIF data. It fails if any of these is invalid or too large.
"""

from __future__ import annotations

import bisect
import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

MAX_PROFILE = 4 * 2**20  # bytes of a colour profile; profiles for printing have 1 to 3 MB
MAX_EXIF = 2**20  # bytes; only the orientation is read
MAX_PARTS = 2_000_000  # of a GIF, each of up to 255 bytes; the rest of a longer file is not checked
MAX_CHUNKS, MAX_SEGMENTS = 1_000_000, 100_000  # of a PNG and a JPEG; real pictures have far fewer
PIECE = 2**20  # bytes that are read at a time
PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
GIF_STARTS = (b"GIF87a", b"GIF89a")
GIF_PICTURE, GIF_EXTENSION = b"\x2c", b"\x21"  # the first bytes of blocks
MAX_TRANSPARENCY = 256  # bytes of the chunk tRNS, one for each colour of a palette
# JPEG markers without a segment, and those that the compressed pixels follow.
JPEG_NO_SEGMENT = frozenset({0x00, 0x01, *range(0xD0, 0xDB)})
JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
JPEG_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
JPEG_SCAN = b"\xff\xda"
JPEG_APPS = range(0xE0, 0xF0)
JPEG_ICC, JPEG_EXIF = b"ICC_PROFILE\0", b"Exif\0\0"
ORIENTATION = 0x0112  # a tag of EXIF
Span = tuple[int, int]  # part of a file: its first byte, and the byte after its last


class BrokenPicture(ValueError):
    """The picture is incomplete or damaged; the message describes the damage."""


@dataclass(slots=True)
class Essentials:
    """The parts of a picture file that affect how it looks."""

    pixels: BinaryIO  # the picture without its metadata, or the file itself
    exif: bytes | None = None
    profile: bytes | None = None  # the ICC colour profile
    has_scans: bool = False  # whether a JPEG has several scans, each with part of the picture


def essentials(file: BinaryIO) -> Essentials:
    """Return the parts of a PNG or JPEG. For any other format, `pixels` is the whole file.

    A GIF is checked to its end, because Pillow reads only its first picture. Raises BrokenPicture.
    """
    result = Essentials(file)
    file.seek(0)
    start = file.read(len(PNG_START))
    if start == PNG_START:
        result.pixels = io.BufferedReader(_PartialFile(file, _read_png(file, result)))
    elif start.startswith(JPEG_START):
        result.pixels = io.BufferedReader(_PartialFile(file, _read_jpeg(file, result)))
    else:
        if start.startswith(GIF_STARTS):
            _check_gif(file)
        file.seek(0)
    return result


def orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, or 1. Pillow would also read all other tags."""
    body = exif.removeprefix(JPEG_EXIF)
    order = {b"II": "<", b"MM": ">"}.get(body[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", body, 4)
        (count,) = struct.unpack_from(f"{order}H", body, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", body, place)
            if tag == ORIENTATION:
                return int(value)
    except struct.error:  # the data ends too early
        pass
    return 1


def _read_png(file: BinaryIO, result: Essentials) -> list[Span]:
    """Return the critical chunks, whose checksums must be valid, and a valid tRNS chunk."""
    spans = [(0, len(PNG_START))]
    place = len(PNG_START)
    for _ in range(MAX_CHUNKS):
        file.seek(place)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4]), head[4:]
        if len(head) < 8:
            raise BrokenPicture("the PNG ends before its last chunk")
        if not kind.isalpha():
            raise BrokenPicture(f"the PNG has a broken chunk at byte {place}")
        following = place + 12 + length
        if kind[:1].isupper():
            _check_chunk(file, kind, length)
            _append(spans, place, following)
            if kind == b"IEND":
                return spans
        elif kind == b"tRNS" and length <= MAX_TRANSPARENCY:
            if _checked_data(file, kind, length) is not None:
                _append(spans, place, following)
        elif kind == b"eXIf" and length <= MAX_EXIF:
            result.exif = _checked_data(file, kind, length)
        elif kind == b"iCCP" and length <= MAX_PROFILE:
            result.profile = _inflated(_checked_data(file, kind, length) or b"")
        place = following
    raise BrokenPicture(f"the PNG has more than {MAX_CHUNKS} chunks")


def _check_chunk(file: BinaryIO, kind: bytes, length: int) -> None:
    """Verify the checksum of a chunk, whose data come next in the file."""
    checksum, left = zlib.crc32(kind), length
    while left:
        piece = file.read(min(left, PIECE))
        if not piece:
            raise BrokenPicture(f"the PNG is truncated in its chunk {kind.decode()}")
        checksum, left = zlib.crc32(piece, checksum), left - len(piece)
    expected = file.read(4)
    if len(expected) < 4:
        raise BrokenPicture(f"the PNG is truncated in its chunk {kind.decode()}")
    if int.from_bytes(expected) != checksum:
        raise BrokenPicture(f"the PNG has a wrong checksum in its chunk {kind.decode()}")


def _checked_data(file: BinaryIO, kind: bytes, length: int) -> bytes | None:
    """Return the data of a short chunk; None if its checksum is wrong."""
    data, expected = file.read(length), file.read(4)
    return data if int.from_bytes(expected) == zlib.crc32(data, zlib.crc32(kind)) else None


def _inflated(data: bytes) -> bytes | None:
    """Return the colour profile in an iCCP chunk; None if it is too large or broken."""
    try:
        decompressor = zlib.decompressobj()
        profile = decompressor.decompress(data.partition(b"\0")[2][1:], MAX_PROFILE)
    except zlib.error:
        return None
    return profile if decompressor.eof else None


def _read_jpeg(file: BinaryIO, result: Essentials) -> list[Span]:
    """Return everything except the APPn segments that do not affect the pixels.

    From the first byte that cannot be read as a segment, everything is left to the decoder.
    """
    spans = [(0, len(JPEG_START))]
    profile: dict[int, bytes] = {}
    place, frame = len(JPEG_START), 0
    for _ in range(MAX_SEGMENTS):
        file.seek(place)
        head = file.read(10)
        if head[:2] == b"\xff\xff":  # any number of fill bytes may precede a marker
            place += 1
            continue
        length = int.from_bytes(head[2:4])
        if len(head) < 4 or head[0] != 0xFF or head[1] in JPEG_NO_SEGMENT or length < 2:
            _append(spans, place, max(place, file.seek(0, io.SEEK_END)))
            result.profile = b"".join(profile[number] for number in sorted(profile)) or None
            result.has_scans = frame > (head[4] if head[:2] == JPEG_SCAN and len(head) > 4 else 0)
            return spans
        following = place + 2 + length
        if head[1] in JPEG_FRAMES and len(head) == 10:
            # A progressive frame has more scans than components.
            frame = head[9] + (head[1] in JPEG_PROGRESSIVE)
        file.seek(place + 4)
        if _is_needed(file, head[1], length - 2, result, profile):
            _append(spans, place, following)
        place = following
    raise BrokenPicture(f"the JPEG has more than {MAX_SEGMENTS} segments")


def _is_needed(
    file: BinaryIO, marker: int, length: int, result: Essentials, profile: dict[int, bytes]
) -> bool:
    """Return whether the segment, whose data come next in the file, affects the pixels.

    Stores EXIF data in `result`, and the parts of a colour profile in `profile`.
    """
    if marker not in JPEG_APPS:
        return True
    data = file.read(length)
    if marker == 0xE1 and data.startswith(JPEG_EXIF) and result.exif is None:
        result.exif = data
    elif marker == 0xE2 and data.startswith(JPEG_ICC) and len(data) > 14:
        profile.setdefault(data[12], data[14:])
    # The segments of JFIF and Adobe, unless they are shorter than Pillow expects.
    is_of_colours = (marker, data[:5]) in ((0xE0, b"JFIF\0"), (0xEE, b"Adobe"))
    return is_of_colours and len(data) >= 12


def _check_gif(file: BinaryIO) -> None:
    """Check that the file does not end inside a block; the trailer byte may be missing."""
    file.seek(10)
    file.seek(13 + _palette_size(file.read(1)))
    in_a_block = False
    for _ in range(MAX_PARTS):
        if in_a_block:
            length = file.read(1)
            if not length:
                raise BrokenPicture("the GIF is truncated")
            file.seek(length[0], io.SEEK_CUR)
            in_a_block = length[0] > 0
            continue
        kind = file.read(1)
        if kind == GIF_PICTURE:
            file.seek(8, io.SEEK_CUR)  # its position and size
            file.seek(_palette_size(file.read(1)) + 1, io.SEEK_CUR)
        elif kind == GIF_EXTENSION:
            file.seek(1, io.SEEK_CUR)
        else:
            return  # the end, or damage that the decoder reports if it matters
        in_a_block = True


def _palette_size(flags: bytes) -> int:
    """Return the size in bytes of the palette that these flags announce."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _append(spans: list[Span], start: int, end: int) -> None:
    """Add a span, merging it with the last one if it follows directly."""
    if spans[-1][1] == start:
        start = spans.pop()[0]
    spans.append((start, end))


class _PartialFile(io.RawIOBase):
    """A read-only view of some spans of a file."""

    def __init__(self, file: BinaryIO, spans: Sequence[Span]) -> None:
        self._file, self._spans, self._place = file, spans, 0
        self._ends = list(accumulate(end - start for start, end in spans))  # in the view

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1]}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        number = bisect.bisect_right(self._ends, self._place)
        if number == len(self._ends):
            return 0
        left = self._ends[number] - self._place
        self._file.seek(self._spans[number][1] - left)
        data = self._file.read(min(left, len(buffer)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
