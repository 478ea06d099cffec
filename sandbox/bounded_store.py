"""A mapping of bounded size, so that a long-running sandbox does not use more and more memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")


class BoundedStore(Generic[K, V]):
    """A thread-safe mapping that drops its oldest entries beyond a number or a total weight."""

    def __init__(
        self, most: int, heaviest: int | None = None, weigh: Callable[[V], int] | None = None
    ) -> None:
        self._most = most
        self._heaviest = heaviest
        self._weigh = weigh or (lambda _: 0)
        self._weight = 0
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: K, value: V) -> list[V]:
        """Store `value` and return the entries that it displaced, oldest first.

        The newest always stays.
        """
        with self._lock:
            replaced = self._entries.get(key)
            if replaced is not None:
                self._weight -= self._weigh(replaced)
            self._entries[key] = value
            self._weight += self._weigh(value)
            return self._drop_oldest()

    def get(self, key: K) -> V | None:
        with self._lock:
            return self._entries.get(key)

    def values(self) -> list[V]:
        """Return all values, oldest first."""
        with self._lock:
            return list(self._entries.values())

    def _drop_oldest(self) -> list[V]:
        dropped = []
        while len(self._entries) > 1 and self._is_full():
            _, value = self._entries.popitem(last=False)
            self._weight -= self._weigh(value)
            dropped.append(value)
        return dropped

    def _is_full(self) -> bool:
        too_heavy = self._heaviest is not None and self._weight > self._heaviest
        return len(self._entries) > self._most or too_heavy
