"""The rest of every store's contract: test events that somebody asked for, and what came of them.

The web process only asks; a worker sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

MOST_TRIES = 3  # a test event with which so many workers died is not sent again
GIVEN_UP_ON = f"the worker died or stalled while it sent this, {MOST_TRIES} times"


class HookTestOutcome(StrEnum):
    """What came of a test event."""

    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class HookTest:
    """The newest test event for a hook. `ended_at` None: it waits, or is being sent."""

    hook: str
    status: str  # that it tells
    asked_at: int
    tries: int = 0  # how often a worker took it
    ended_at: int | None = None
    outcome: HookTestOutcome | None = None
    answer: str = ""  # what the other side said, or the error


class HookTests(Protocol):
    """Test events: one at a time for each hook. They change no endpoint."""

    def ask_trial(self, hook: str, status: str, now: int) -> bool:
        """Ask a worker to send one; False if one was asked for that has not ended."""
        ...

    def take_trials(self, now: int, again_at: int) -> list[HookTest]:
        """Those that wait, oldest first, each for one worker; for another at `again_at`.

        One that was taken `MOST_TRIES` times without an end has failed.
        """
        ...

    def hold_trial(self, trial: HookTest, again_at: int) -> None:
        """It is still being sent. Nothing happens if somebody else has it."""
        ...

    def end_trial(self, trial: HookTest, outcome: HookTestOutcome, answer: str, now: int) -> bool:
        """Keep what came of it; False if it ended already, or somebody else has it."""
        ...

    def trials(self) -> list[HookTest]:
        """The newest of each hook, by hook."""
        ...
