"""Detects the type of a file from its first bytes, never from a header, a URL or a name."""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD = 4096  # bytes that `detect` and `text_in` need at most
TEXT_HEAD = 1024  # bytes that are enough to recognise text


@dataclass(frozen=True, slots=True)
class FileType:
    """The extension for files of this type, and their media type."""

    extension: str
    content_type: str

    @property
    def is_image(self) -> bool:
        return self.content_type.startswith("image/")


UNKNOWN = FileType("bin", "application/octet-stream")
JPEG, PNG = FileType("jpg", "image/jpeg"), FileType("png", "image/png")
WEBP, GIF = FileType("webp", "image/webp"), FileType("gif", "image/gif")
AVIF, HEIC = FileType("avif", "image/avif"), FileType("heic", "image/heic")
BMP, TIFF = FileType("bmp", "image/bmp"), FileType("tiff", "image/tiff")
HEIF, JP2 = FileType("heif", "image/heif"), FileType("jp2", "image/jp2")
MP4, MOV = FileType("mp4", "video/mp4"), FileType("mov", "video/quicktime")
M4A, THREE_GP = FileType("m4a", "audio/mp4"), FileType("3gp", "video/3gpp")
WEBM, MKV = FileType("webm", "video/webm"), FileType("mkv", "video/x-matroska")
MP3, WAV = FileType("mp3", "audio/mpeg"), FileType("wav", "audio/wav")
AVI, AAC = FileType("avi", "video/x-msvideo"), FileType("aac", "audio/aac")
OGG, OGV = FileType("ogg", "audio/ogg"), FileType("ogv", "video/ogg")
PDF = FileType("pdf", "application/pdf")

# Pillow's names for the formats that it reads; it reads all variants of only the first few.
DECODED = {JPEG: "JPEG", PNG: "PNG", WEBP: "WEBP", GIF: "GIF"}
PARTLY_DECODED = {AVIF: "AVIF", BMP: "BMP", TIFF: "TIFF", JP2: "JPEG2000"}

_SIGNATURES = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"%PDF-", PDF),
    (b"\xff\x4f\xff\x51", FileType("j2k", "image/x-jp2-codestream")),
    (b"II\x2b\0\x08\0\0\0", TIFF),  # BigTIFF, in either byte order
    (b"MM\0\x2b\0\x08\0\0", TIFF),
    (b"glTF\2\0\0\0", FileType("glb", "model/gltf-binary")),
    (b"PK\3\4", FileType("zip", "application/zip")),
)
# Netpbm: the header is text, and the pixels may be as well, or look like it.
_NETPBM = re.compile(rb"P([1-6])(?:\s|#[^\n]*\n)+[0-9]{1,9}(?:\s|#[^\n]*\n)+[0-9]{1,9}\s")
_NETPBM_TYPES = (
    FileType("pbm", "image/x-portable-bitmap"),
    FileType("pgm", "image/x-portable-graymap"),
    FileType("ppm", "image/x-portable-pixmap"),
)
_RIFF = {b"WEBP": WEBP, b"WAVE": WAV, b"AVI ": AVI}
# Brands of the ISO base media file format (registered at mp4ra.org); all others mean MP4.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), HEIC),
    **dict.fromkeys((b"mif1", b"mif2", b"msf1", b"miaf"), HEIF),
    **dict.fromkeys((b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "), M4A),
    b"qt  ": MOV,
    b"crx ": FileType("cr3", "image/x-canon-cr3"),
    b"jp2 ": JP2,
    b"jpx ": FileType("jpx", "image/jpx"),
    b"jxl ": FileType("jxl", "image/jxl"),
}
# QuickTime files from before 2001 begin with another box.
_QUICKTIME_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
AIFF, WAVPACK = FileType("aiff", "audio/aiff"), FileType("wv", "audio/x-wavpack")
# The formats that puremagic detects reliably. It has several media types for some of them, and
# other extensions for a few. It has no executable formats.
_MORE_TYPES = {
    "jxl": "image/jxl",
    "ico": "image/vnd.microsoft.icon",
    "icns": "image/icns",
    "psd": "image/vnd.adobe.photoshop",
    "dds": "image/vnd.ms-dds",
    "exr": "image/x-exr",
    "hdr": "image/vnd.radiance",
    "qoi": "image/qoi",
    "flac": "audio/flac",
    "amr": "audio/amr",
    "ac3": "audio/ac3",
    "ape": "audio/x-ape",
    "au": "audio/basic",
    "caf": "audio/x-caf",
    "mid": "audio/midi",
    "flv": "video/x-flv",
    "mpg": "video/mpeg",
    "wmv": "video/x-ms-wmv",
    "gz": "application/gzip",
    "7z": "application/x-7z-compressed",
    "rar": "application/vnd.rar",
}
_BY_EXTENSION = {
    **{one.extension: one for one in (BMP, TIFF, JP2, AVIF, HEIC, AVI, MKV, WEBM, MOV, MP4)},
    **{one.extension: one for one in (AAC, WAV, OGG, MP3, AIFF)},
    **{extension: FileType(extension, type_) for extension, type_ in _MORE_TYPES.items()},
    "tif": TIFF,
    "jpf": JP2,
    "aif": AIFF,
    "aifc": AIFF,
    "wvp": WAVPACK,
}

_MARKUP = re.compile(rb"<(?:[!?/]|[A-Za-z][A-Za-z0-9:]{0,20}[\s/>])|[{\[]\s{0,20}[\"{\[\]}]")
_BYTE_ORDER_MARKS = {  # UTF-32 comes first, because the mark of UTF-16-LE is its prefix
    b"\xff\xfe\0\0": "utf-32-le",
    b"\0\0\xfe\xff": "utf-32-be",
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
}
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\f\r\x1b\b") | {127}
_NEVER_IN_TEXT = bytes(_CONTROLS | {0xFF})  # in UTF-8 and in legacy encodings


def detect(head: bytes) -> FileType:
    """Return the type of a file that begins with `head`; UNKNOWN for text and unknown formats."""
    found = _signature(head)
    if found is None and not text_in(head):
        found = _named_by_puremagic(head)
    return found or UNKNOWN


def text_in(head: bytes) -> str:
    """Return the beginning of the text in a file that begins with `head`; empty if it is binary.

    Text may be in UTF-8, UTF-16 or UTF-32, with or without a byte order mark, or in a legacy
    encoding such as Windows-1252 or GBK, whose characters outside ASCII are replaced.
    """
    sample = head[:TEXT_HEAD]
    if not sample.strip(b"\0") or _signature(head) is not None:
        return ""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return _wide_text(sample[len(mark) :], encoding)
    for encoding in _BYTE_ORDER_MARKS.values():
        text = _wide_text(sample, encoding)
        # Almost any two bytes are a valid UTF-16 character, so most of the text has to be ASCII.
        if sum(map(str.isascii, text)) * 2 > len(text):
            return text
    sample = sample.rstrip(b"\0").removeprefix(b"\xef\xbb\xbf")
    strange = len(sample) - len(sample.translate(None, _NEVER_IN_TEXT))
    may_be_strange = _MARKUP.match(sample.lstrip()) is not None
    if strange > (len(sample) // 50 + 1 if may_be_strange else 0):
        return ""
    return sample.decode("utf-8", "replace")


def _wide_text(sample: bytes, encoding: str) -> str:
    """Return the text of a UTF-16 or UTF-32 sample; empty if the sample is not such text."""
    whole = sample[: len(sample) // 4 * 4] if "32" in encoding else sample[: len(sample) // 2 * 2]
    text = whole.decode(encoding, "replace").rstrip("\0")
    # The sample may end in the middle of a character.
    is_text = "\ufffd" not in text[:-1] and _CONTROLS.isdisjoint(map(ord, text))
    return text if is_text else ""


def _signature(head: bytes) -> FileType | None:
    """Return the type of a file with an unambiguous signature."""
    for start, found in _SIGNATURES:
        if head.startswith(start):
            return found
    brand = head[8:12]
    if head.startswith((b"RIFF", b"RF64")) and brand in _RIFF:
        return _RIFF[brand]
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if head[4:12] in (b"jP  \r\n\x87\n", b"JXL \r\n\x87\n"):  # ftyp is the second box
        return _of_brands(head[12:])
    if head[4:8] in _QUICKTIME_BOXES and head[:1] == b"\0":
        return MOV
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM if b"\x42\x82\x84webm" in head[:128] else MKV
    if head.startswith(b"OggS\0"):
        return OGV if b"theora" in head[:64] else OGG
    if netpbm := _NETPBM.match(head):
        return _NETPBM_TYPES[(int(netpbm[1]) - 1) % 3]
    return _mpeg_audio(head)


def _of_brands(head: bytes) -> FileType:
    """Return the type for the major brand, or for the other brands if it is HEIF's general one."""
    size = min(int.from_bytes(head[:4]), 128)
    compatible = [head[place : place + 4] for place in range(16, size, 4)]
    main = head[8:12]
    if main[:3] in (b"3gp", b"3g2"):
        return THREE_GP
    found = _BRANDS.get(main, MP4)
    if found is HEIF:
        found = next((_BRANDS[one] for one in compatible if _BRANDS.get(one) in (AVIF, HEIC)), HEIF)
    return found


def _mpeg_audio(head: bytes) -> FileType | None:
    """A frame of MPEG audio begins with 11 set bits, its version, and its layer (0: AAC)."""
    if head.startswith((b"ID3\2", b"ID3\3", b"ID3\4")):  # a tag, in one of its versions
        return MP3
    if len(head) < 3 or head[0] != 0xFF:
        return None
    if head[1] & 0xE6 == 0xE2 and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C:
        return MP3
    if head[1] & 0xF6 == 0xF0 and (head[2] >> 2) & 0xF < 13:  # of 16 sampling rates 13 are in use
        return AAC
    return None


def _named_by_puremagic(head: bytes) -> FileType | None:
    import puremagic  # noqa: PLC0415 - it takes up to 70 ms, and most commands do not need it

    try:
        matches = puremagic.magic_string(head[:HEAD])
    except (puremagic.PureError, ValueError):  # the format is unknown, or the file is empty
        return None
    extensions = (one.extension.removeprefix(".") for one in matches)
    return next((_BY_EXTENSION[one] for one in extensions if one in _BY_EXTENSION), None)
