"""Reads the output of `receiver tail --json`: each status change and attempt, and its time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sandbox.demo.progress_deadline import StepError

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = ("receiver", "tail", "--json", "--only", "move", "--only", "attempt", "--lines", "200")
DELIVERED = "delivered"


@dataclass(frozen=True)
class Event:
    """A status change of a task, or an attempt at one of its deliveries (then `hook` is set)."""

    at: int  # Unix milliseconds at which it happened, according to the record
    provider: str
    reference: str
    outcome: str  # the status, or how the attempt ended
    hook: str | None = None
    answer: str = ""

    @property
    def is_progress(self) -> bool:
        """Return whether this is more than a failed attempt, which could be repeated forever."""
        return self.hook is None or self.outcome == DELIVERED


class Activity:
    """Follows the file into which `receiver tail --json` prints."""

    def __init__(self, printed: Path) -> None:
        self._printed = printed
        self._offset = 0

    def read(self) -> list[Event]:
        """Return the events that were printed since the last call, in the order of their times."""
        with self._printed.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        # Warnings of the command are in the same file.
        lines = [line for line in complete.splitlines() if line.startswith(b"{")]
        return sorted(map(_event, lines), key=lambda event: event.at)


def _event(line: bytes) -> Event:
    try:
        row = json.loads(line)
        return Event(
            at=round(datetime.fromisoformat(row["at"]).timestamp() * 1000),
            provider=str(row["provider"]),
            reference=str(row["reference"]),
            outcome=str(row["outcome"]),
            hook=row["hook"],
            answer=str(row["said"]) if row["hook"] else "",
        )
    except (KeyError, TypeError, ValueError) as fault:
        shown = line.decode(errors="replace")[:400]
        raise StepError(
            f"`receiver tail --json` printed an unexpected line ({fault}): {shown}"
        ) from None
