"""Decodes the Content-Encoding of a message, up to a size limit; pure.

A sender may compress a body, and a proxy may decompress it but keep the header. A body that is
already plain JSON, or has an unsupported coding, is therefore returned unchanged, and the parser
decides whether it is valid.
"""

from __future__ import annotations

import re
import zlib

from receiver.errors import BodyTooLong, NotJson
from receiver.text import limits

HEADER = "Content-Encoding"
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib detects which, from the first bytes
RAW = -zlib.MAX_WBITS  # deflate without the zlib header, as some senders interpret RFC 9110
_GZIP_MAGIC = b"\x1f\x8b"
# Compressed JSON never begins like this.
_PLAIN = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*(?:\{[ \t\r\n]*[\"}]|\Z)|\xff\xfe|\xfe\xff")


def decoded(body: bytes, codings: str) -> bytes:
    """Return the body without `codings`, the value of its Content-Encoding header.

    Raises NotJson if the compressed data is damaged, and BodyTooLong if it has more than
    `limits.MAX_BODY` bytes after decompression.
    """
    applied = [coding.strip().lower() for coding in codings.split(",")]
    compressions = [coding for coding in applied if coding in ("gzip", "x-gzip", "deflate")]
    if len(compressions) > limits.MAX_CODINGS:
        raise NotJson(
            f"the body is compressed {len(compressions)} times, "
            f"and at most {limits.MAX_CODINGS} are allowed"
        )
    for coding in reversed(compressions):
        if _PLAIN.match(body):
            break
        body = _decompressed(body, coding)
    return body


def _decompressed(body: bytes, coding: str) -> bytes:
    try:
        return _inflated(body, GZIP_OR_ZLIB)
    except zlib.error as error:
        if coding == "deflate":
            try:
                return _inflated(body, RAW)
            except zlib.error:
                pass
        raise NotJson(f"the body cannot be decompressed ({coding}): {error}") from None


def _inflated(rest: bytes, window: int) -> bytes:
    """Return the data of all gzip members, or of one deflate stream.

    Raises zlib.error and BodyTooLong.
    """
    data = b""
    for _ in range(limits.MAX_GZIP_MEMBERS):
        stream = zlib.decompressobj(window)
        data += stream.decompress(rest, limits.MAX_BODY + 1 - len(data))
        if len(data) > limits.MAX_BODY:
            raise BodyTooLong(f"the body has more than {limits.MAX_BODY} bytes after decompression")
        if not stream.eof:
            raise zlib.error("the data is cut off")
        rest = stream.unused_data
        if window == RAW and rest:
            raise zlib.error("more data follows")
        if not rest.startswith(_GZIP_MAGIC):  # padding is ignored, as gzip does
            return data
    raise zlib.error(f"the data has more than {limits.MAX_GZIP_MEMBERS} members")
