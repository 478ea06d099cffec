"""Counts in memory, and hands the sums over now and then: to count costs no write.

What a process has counted since it last did so is lost if it is killed; the record is not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from threading import Lock

from receiver.errors import StoreError
from receiver.observability.metrics import STORE_ERRORS, MetricDefinition, Sample

Key = tuple[str, tuple[str, ...]]
Keep = Callable[[Sequence[Sample], Sequence[Sample]], None]
"""Adds the first to what is kept; of the second the greater value is kept."""

EVERY = 5.0  # seconds between two hand-overs
SUM, BEYOND = "sum", "+Inf"


class MetricBuffer:
    """What one process counts; safe to use from many threads."""

    def __init__(self, process: str = "other") -> None:
        self._process = process
        self._lock = Lock()
        self._added: dict[Key, float] = {}
        self._newest: dict[Key, float] = {}
        self.store_failures = 0  # since the start of this process

    @property
    def is_pending(self) -> bool:
        """Is there anything to hand over?"""
        return bool(self._added or self._newest)

    def count(self, measure: MetricDefinition, *labels: str, by: float = 1) -> None:
        """So many more."""
        with self._lock:
            self._add((measure.name, labels), by)

    def observe(self, measure: MetricDefinition, seconds: float, *labels: str) -> None:
        """One more in the bucket of a histogram."""
        seconds = max(seconds, 0.0)  # less if the clock was set back: a sum must not decrease
        place = bisect_left(measure.buckets, seconds)
        bound = f"{measure.buckets[place]:g}" if place < len(measure.buckets) else BEYOND
        with self._lock:
            self._add((measure.name, (*labels, bound)), 1)
            self._add((measure.name, (*labels, SUM)), seconds)

    def note(self, measure: MetricDefinition, value: float, *labels: str) -> None:
        """A value of which the greatest counts, such as an instant."""
        key = (measure.name, labels)
        with self._lock:
            self._newest[key] = max(value, self._newest.get(key, value))

    def store_failed(self) -> None:
        """Count that the record was unavailable to this process."""
        self.store_failures += 1
        self.count(STORE_ERRORS, self._process)

    def flush(self, keep: Keep) -> None:
        """Hand over what was counted. What cannot be kept waits. Raises StoreError."""
        with self._lock:
            added, self._added = self._added, {}
            newest, self._newest = self._newest, {}
        if not (added or newest):
            return
        try:
            keep(_readings(added), _readings(newest))
        except StoreError:
            self._take_back(added, newest)
            raise

    def _take_back(self, added: dict[Key, float], newest: dict[Key, float]) -> None:
        with self._lock:
            for key, value in added.items():
                self._add(key, value)
            for key, value in newest.items():
                self._newest[key] = max(value, self._newest.get(key, value))

    def _add(self, key: Key, value: float) -> None:
        self._added[key] = self._added.get(key, 0) + value


def _readings(found: dict[Key, float]) -> list[Sample]:
    """In one order for all processes: none waits for a row of another that waits for one of its."""
    return sorted(Sample(name, labels, value) for (name, labels), value in found.items())
