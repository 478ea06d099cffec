"""When a provider is asked about a task; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

FINAL_AGE = 86_400.0  # seconds; after a day nobody believes in an end any more
LONGEST_WAIT = 3_600.0  # seconds between two questions
DEFAULT_DEADLINE = 90.0  # seconds for a callback, before any duration was learnt


@dataclass(frozen=True, slots=True)
class Schedule:
    """The deadlines of one provider's tasks; every duration in seconds.

    `usual`: how long a task takes from creation to success. With callbacks we ask only when they
    are late; without, we ask when the task is usually done, and often around that time.
    """

    usual: float
    has_callbacks: bool
    learnt: bool = False  # `usual` was measured on this record, not taken from the vendor's page
    at_most: float | None = None  # what the operator allows for the first question
    kept_for: float = math.inf  # seconds from the end of a task until its results are deleted

    @property
    def first(self) -> float:
        """Seconds from creation to the first question."""
        if not self.has_callbacks:
            first = _within(0.7 * self.usual, 1.0, 300.0)
        elif self.learnt:
            first = _within(3 * self.usual, 30.0, 600.0)
        else:
            first = DEFAULT_DEADLINE
        # A result must be fetched while it exists, with time left for another query.
        return min(first, self.kept_for / 2, math.inf if self.at_most is None else self.at_most)

    def again(self, age: float) -> float | None:
        """Seconds until the next question about an open task of this age; None: give up.

        The waits grow with the age: doubling where callbacks should have come, by a fifth
        where they cannot, up to an hour.
        """
        if age >= FINAL_AGE:
            return None
        share = 1.0 if self.has_callbacks else 0.2
        shortest = self.first if self.has_callbacks else _within(self.usual / 10, 1.0, 30.0)
        wait = _within(share * age, max(1.0, min(shortest, self.first)), LONGEST_WAIT)
        return min(wait, self.kept_for / 2, max(1.0, FINAL_AGE - age))


def _within(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))
