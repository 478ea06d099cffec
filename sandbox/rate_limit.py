"""A limit of requests per minute, and the headers that state how many are left."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

A_MINUTE = 60.0  # seconds


class RateLimit:
    """Allows `most` requests in any minute. Thread-safe. `clock` returns Unix seconds."""

    def __init__(self, most: int, clock: Callable[[], float] = time.time) -> None:
        self.most = most
        self._clock = clock
        self._taken: deque[float] = deque()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Count a request; return False if it exceeds the limit.

        A refused request does not count.
        """
        with self._lock:
            now = self._now()
            has_room = len(self._taken) < self.most
            if has_room:
                self._taken.append(now)
            return has_room

    def headers(self) -> dict[str, str]:
        with self._lock:
            now = self._now()
            reset_at = math.ceil(self._taken[0] + A_MINUTE if self._taken else now)
            left = self.most - len(self._taken)
        values = {"Limit": self.most, "Remaining": left, "Reset": reset_at}
        return {f"X-RateLimit-{name}": str(value) for name, value in values.items()}

    def _now(self) -> float:
        """Remove requests that are older than a minute."""
        now = self._clock()
        while self._taken and self._taken[0] <= now - A_MINUTE:
            self._taken.popleft()
        return now
