"""What downloaded bytes are: told by their content, never by a header or a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from receiver import pictures
from receiver.errors import ContentFailure, PermanentFailure

HEAD = 4096  # bytes that are enough to tell
MAX_PIXELS = 64_000_000  # 8000 by 8000; more is a decompression bomb, or of no use in a shop


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds."""

    extension: str
    content_type: str

    @property
    def is_image(self) -> bool:
        return self.content_type.startswith("image/")


UNKNOWN = Content("bin", "application/octet-stream")
JPEG, PNG = Content("jpg", "image/jpeg"), Content("png", "image/png")
WEBP, GIF = Content("webp", "image/webp"), Content("gif", "image/gif")
MP4, MOV = Content("mp4", "video/mp4"), Content("mov", "video/quicktime")
WEBM = Content("webm", "video/webm")
MP3, WAV = Content("mp3", "audio/mpeg"), Content("wav", "audio/wav")
STILL_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"mif1"})  # pictures in MP4's box
PILLOW_FORMATS = {JPEG: "JPEG", PNG: "PNG", WEBP: "WEBP", GIF: "GIF"}


def inspect(path: Path, kind: str) -> tuple[Content, bytes | None]:
    """What the file is and, of an image, a thumbnail. `kind` is what the provider says it is.

    Raises ContentFailure if it is not what it should be (an error page may be gone the next
    time), PermanentFailure for a decompression bomb.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    content = sniff(head)
    if not head:
        raise ContentFailure("the result is empty")
    if content is UNKNOWN and kind in ("image", "video", "audio") and _is_text(head):
        raise ContentFailure(f"the result is a page of text, not the {kind}")
    if kind == "image" and not content.is_image:
        raise ContentFailure("the result is not a picture that we know")
    return content, thumbnail(path, content) if content.is_image else None


def sniff(head: bytes) -> Content:
    """What a file that begins like this is."""
    brand = head[8:12]
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head.startswith(b"RIFF"):
        return {b"WEBP": WEBP, b"WAVE": WAV}.get(brand, UNKNOWN)
    if head[4:8] == b"ftyp":
        if brand in STILL_BRANDS:
            return UNKNOWN
        return MOV if brand == b"qt  " else MP4
    if head.startswith(b"\x1a\x45\xdf\xa3") and b"webm" in head[:64]:
        return WEBM
    # An MPEG audio frame begins with 11 set bits; 01 after its version bits is layer III.
    if head.startswith(b"ID3") or (head[:1] == b"\xff" and head[1:2] and head[1] & 0xE6 == 0xE2):
        return MP3
    return UNKNOWN


def thumbnail(path: Path, content: Content) -> bytes:
    """A JPEG of at most 40 kB, upright, on white; reads the whole picture on the way.

    Raises ContentFailure for a broken picture, PermanentFailure for a decompression bomb.
    """
    try:
        with _opened(path, content) as image:
            image.verify()
        with _opened(path, content) as image:  # verify leaves it unusable
            return pictures.thumbnail(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PermanentFailure(f"the picture has more than {MAX_PIXELS} pixels") from None
    except pictures.BROKEN as error:
        raise ContentFailure(f"the picture is broken: {error}") from error


def _opened(path: Path, content: Content) -> Image.Image:
    image = Image.open(path, formats=[PILLOW_FORMATS[content]])
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Image.DecompressionBombError
    return image


def _is_text(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{")
