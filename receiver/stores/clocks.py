"""The rest of every store's contract: clocks that were set, and the schedules that move with them.

See docs/adr/0016-clock-steps.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

LEAST_STEP = 2_000  # ms; a smaller change of a clock is not corrected
LEAST_AFTER_BOOT = 15_000  # ms that the newest heartbeat is in the future after a reboot
SETTLES_WITHIN = 600_000  # ms after a boot in which a machine without a battery learns the time
NEW_LEASE = 10_000  # ms; running deliveries are renewed every 2.5 s
# ms in which a step is detected and corrected; what was scheduled meanwhile is right already.
CORRECTED_WITHIN = 15_000
REFRESH_EVERY = 30_000  # ms after which each machine confirms that its server's clock was not set
LIVE_FOR = 75_000  # ms after which a machine that did not is not asked to confirm a step


@dataclass(frozen=True, slots=True)
class ClockStep:
    """A correction. `by_ms`: how far the clock was set; negative: back."""

    at: int  # after the step
    by_ms: int
    moved_ms: int  # how far schedules were moved

    @property
    def text(self) -> str:
        """Describe the step for people."""
        direction = "back" if self.by_ms < 0 else "forward"
        return f"the clock was set {direction} by {abs(self.by_ms) / 1000:.0f} s"


class Clocks(Protocol):
    """The record's clock, compared with the time since boot."""

    def server_clock(self) -> int | None:
        """The time of the database server in ms UTC; None: its clock is this machine's."""
        ...

    def clock_step(self, boot: str, offset: int, now: int) -> int:
        """Return by how many ms the clock was set without a correction; 0 if it was not.

        `offset` is the difference between the record's clock, which shows `now`, and the time since
        the boot named `boot`.
        """
        ...

    def correct_clock(
        self, boot: str, offset: int, now: int, *, settles: bool = False, shared: bool = False
    ) -> ClockStep | None:
        """Store the offset of this boot, and move all schedules by an uncorrected step, once.

        With `settles`, the machine booted so recently that a step forward is elapsed time: it is
        moved only as far as this boot moved back. With `shared`, the clock is that of a server. If
        other machines use it, a step forward waits for one of them to notice it too, because the
        clock of a virtual machine that was paused seems to show the same. Returns the correction,
        or None.
        """
        ...

    def limit_schedules(self, now: int) -> int:
        """Make due whatever is due later than its longest possible delay; return how many rows."""
        ...

    def clock_steps(self, since: int) -> list[ClockStep]:
        """The corrections since that instant, by the clock before or after the step; oldest first.

        Those that follow the first of them are included, whatever the clock showed.
        """
        ...

    def set_forward_since(self, since: int) -> int:
        """Return by how many ms a clock that was set makes data of that time or later look older.

        This is the largest sum of the newest corrections since then, and never negative.
        """
        ...
