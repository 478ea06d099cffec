"""The rest of every store's contract: what happened last, to be followed as it happens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

Key = tuple[int, ...]


class ActivityKind(StrEnum):
    """What can happen to a task."""

    CALLBACK = "callback"  # a provider said something that it had not said before
    MOVE = "move"  # the task has another status
    ATTEMPT = "attempt"  # a delivery was tried


@dataclass(frozen=True, slots=True)
class Activity:
    """One thing that happened. Of a message of no task, task, account and reference are None."""

    kind: ActivityKind
    key: Key  # orders those of a kind
    at: int  # integer milliseconds UTC
    task_id: str | None
    provider: str
    account: str | None
    reference: str | None
    outcome: str  # of a callback or an attempt; the status that a task moved to
    status: str | None = None  # that an attempt told
    hook: str | None = None
    said: str = ""


class ActivityLog(Protocol):
    """What happened last."""

    def newest(
        self, kind: ActivityKind, *, before: Key | None = None, limit: int = 200
    ) -> list[Activity]:
        """Those of this kind with the greatest keys, greatest first, smaller than `before`.

        In PostgreSQL a smaller key may appear after a greater one: whoever was later with its
        commit. A byte-identical repeat of a callback is only counted, and does not appear.
        """
        ...
