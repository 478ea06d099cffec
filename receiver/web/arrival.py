"""Has a whole request arrived? Looked at byte by byte as it comes; pure.

This decides when a request is given to a thread, never what it means: that is gunicorn's parser,
which gets the same bytes. Where the two would disagree, the parser meets an early end.
"""

from __future__ import annotations

import re
from enum import Enum, auto

LONGEST_HEAD = 32 * 1024  # bytes; real ones have 1 kB, a proxy's cookies and tokens make it 8
LONGEST_BODY = 256 * 1024  # bytes that are waited for; whoever takes more reads the rest itself
LONGEST_CHUNKED = 2 * LONGEST_BODY  # bytes on the wire: the sizes of the chunks come on top
LONGEST_LINE = 8 * 1024  # of a chunk's size, or of all the trailers

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
BARE_LF = re.compile(rb"(?<!\r)\n")
_BEGINS = re.compile(rb"[A-Za-z\r]")
_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?", re.DOTALL)


class Reach(Enum):
    """How much of a request is there."""

    PART = auto()
    WHOLE = auto()  # or so broken that more of it would change nothing
    LONG = auto()  # the head, of a body that is longer than what is waited for
    ENDLESS_HEAD = auto()
    ENDLESS_CHUNKS = auto()
    NOT_HTTP = auto()  # such as TLS, sent to a port that speaks none


class Arrival:
    """The bytes of one request so far; what follows it may be there as well."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.wants_continue = False  # it waits to be told that its body is welcome
        self._searched = 0
        self._whole_at: int | None = None  # the size at which the body is there
        self._chunk_at: int | None = None  # where the next chunk begins

    def add(self, piece: bytes) -> Reach:
        """How much is there with this piece."""
        self.data += piece
        if self._whole_at is None and self._chunk_at is None:
            return self._head()
        return self._body()

    def _head(self) -> Reach:
        if not _BEGINS.match(self.data):
            return Reach.NOT_HTTP
        # Each byte is looked at once: who sends a long head byte by byte must not cost its square.
        searched, self._searched = self._searched, len(self.data)
        end = self.data.find(b"\r\n\r\n", max(0, searched - 3))
        if end > LONGEST_HEAD or (end < 0 and len(self.data) > LONGEST_HEAD):
            return Reach.ENDLESS_HEAD
        if end < 0:
            return Reach.WHOLE if BARE_LF.search(self.data, searched) else Reach.PART
        head = bytes(self.data[: end + 2])
        if _CHUNKED.search(head):
            self._chunk_at = end + 4
        else:
            found = _LENGTH.search(head)
            length = int(found[1]) if found else 0
            if length > LONGEST_BODY:
                return Reach.LONG
            self._whole_at = end + 4 + length
        reach = self._body()
        self.wants_continue = reach is Reach.PART and bool(_EXPECT.search(head))
        return reach

    def _body(self) -> Reach:
        if self._chunk_at is not None:
            return self._chunks(self._chunk_at)
        return Reach.PART if len(self.data) < (self._whole_at or 0) else Reach.WHOLE

    def _chunks(self, at: int) -> Reach:
        """Step over every chunk that is there; the last one is empty, trailers may follow."""
        is_last = False
        while (end := self.data.find(b"\r\n", at, at + LONGEST_LINE)) >= 0:
            size = _SIZE.fullmatch(self.data, at, end)
            if not size:
                return Reach.WHOLE
            following = end + 2 + int(size[1], 16) + 2
            is_last = following == end + 4
            if is_last or following > len(self.data):
                break
            self._chunk_at = at = following
        if is_last and self.data.find(b"\r\n\r\n", end) >= 0:
            return Reach.WHOLE
        if len(self.data) > LONGEST_CHUNKED:
            return Reach.ENDLESS_CHUNKS
        is_endless = (is_last or end < 0) and len(self.data) - at > LONGEST_LINE
        return Reach.WHOLE if is_endless else Reach.PART
