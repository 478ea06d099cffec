"""Makes and keeps the result pictures and says under which address each can be fetched."""

from __future__ import annotations

import hashlib
import struct
import time

from sandbox import try_on_picture
from sandbox.bounded_store import BoundedStore

KEPT = 500
HEAVIEST = 256 * 1024 * 1024
LIFETIME = 30 * 24 * 3600  # seconds; Kling deletes outputs 30 days after generation
PNG_SIZE = ">II"  # at byte 16, right after the name of the header's chunk


class ResultPictures:
    """Pictures are kept by what they were made from, so that equal orders share one."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._pictures: BoundedStore[str, bytes] = BoundedStore(KEPT, HEAVIEST, len)

    def make(self, human: bytes, cloth: bytes) -> str:
        """Make the picture and return its name; raise PictureError where none can be made."""
        name = hashlib.sha256(human + cloth).hexdigest()[:32]
        if self._pictures.get(name) is None:
            self._pictures.put(name, try_on_picture.dress(human, cloth))
        return name

    def size(self, name: str) -> tuple[int, int] | None:
        """Return width and height in pixels, of a picture that is still there."""
        content = self._pictures.get(name)
        if content is None:
            return None
        width, height = struct.unpack(PNG_SIZE, content[16:24])
        return width, height

    def url(self, name: str, task_id: str, made_at: int) -> str:
        """Return the address that is good for 30 days from `made_at` (Unix milliseconds)."""
        expires = made_at // 1000 + LIFETIME
        return f"{self._base_url}/_sandbox/results/{name}/{task_id}.png?Expires={expires}"

    def picture(self, name: str, expires: str) -> bytes | None:
        """Return the PNG unless it is gone or the URL's `Expires=` is missing or has passed."""
        is_valid = expires.isascii() and expires.isdigit() and int(expires) > time.time()
        return self._pictures.get(name) if is_valid else None
