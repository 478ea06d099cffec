"""Makes and stores result pictures, and returns the URL of each."""

from __future__ import annotations

import hashlib
import struct
import time

from sandbox import try_on_picture
from sandbox.bounded_store import BoundedStore

KEPT = 500
HEAVIEST = 256 * 1024 * 1024
LIFETIME = 30 * 24 * 3600  # seconds; Kling deletes outputs 30 days after generation
PNG_SIZE = ">II"  # at byte 16, right after the chunk name


class ResultPictures:
    """Stores pictures by a digest of their inputs, so that equal requests share one."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._pictures: BoundedStore[str, bytes] = BoundedStore(KEPT, HEAVIEST, len)

    def make(self, human: bytes, cloth: bytes) -> str:
        """Make the picture and return its name; raise PictureError if the inputs are unusable."""
        name = hashlib.sha256(human + cloth).hexdigest()[:32]
        if self._pictures.get(name) is None:
            self._pictures.put(name, try_on_picture.dress(human, cloth))
        return name

    def size(self, name: str) -> tuple[int, int] | None:
        """Return the width and height in pixels of a stored picture."""
        content = self._pictures.get(name)
        if content is None:
            return None
        width, height = struct.unpack(PNG_SIZE, content[16:24])
        return width, height

    def url(self, name: str, task_id: str, made_at: int) -> str:
        """Return a URL that is valid for 30 days from `made_at` (Unix milliseconds)."""
        expires = made_at // 1000 + LIFETIME
        return f"{self._base_url}/_sandbox/results/{name}/{task_id}.png?Expires={expires}"

    def picture(self, name: str, expires: str) -> bytes | None:
        """Return the PNG; None if it was dropped, or the URL's `Expires=` is missing or in
        the past.
        """
        is_valid = expires.isascii() and expires.isdigit() and int(expires) > time.time()
        return self._pictures.get(name) if is_valid else None
