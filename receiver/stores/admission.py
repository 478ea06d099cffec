"""Decides which deliveries a worker process has a slot for, before a store claims them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Candidate:
    """A delivery that is due."""

    id: int
    hook: str
    timed_out: bool  # whether the last attempt of its hook, for any delivery, timed out
    abandoned: bool  # whether its own last attempt was abandoned: it may have killed its worker


class Admission(Protocol):
    """The free slots of one worker process. Thread-safe."""

    def has_slot(self, hook: str, *, timed_out: bool) -> bool:
        """Return whether another delivery of this hook may begin now."""
        ...

    @property
    def takes_abandoned(self) -> bool:
        """Whether a delivery whose last attempt was abandoned may begin now."""
        ...

    def begin(self, candidate: Candidate) -> bool:
        """Reserve a slot for this delivery; False if there is none for it.

        Safe to repeat, because a transaction that was rolled back is tried again.
        """
        ...


class _Unlimited:
    takes_abandoned = True

    def has_slot(self, hook: str, *, timed_out: bool) -> bool:  # noqa: ARG002 - all may begin
        return True

    def begin(self, candidate: Candidate) -> bool:  # noqa: ARG002 - all may begin
        return True


UNLIMITED: Admission = _Unlimited()
