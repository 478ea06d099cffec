"""Detects that the clock was set, and corrects schedules; see docs/adr/0016-clock-steps.md.

A step is a change of the record's clock relative to the time since boot. Suspending the machine and
slewing the clock change both, so neither is a step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from receiver import clock
from receiver.observability.logger import Logger
from receiver.observability.metrics import CLOCK_STEPS, MetricBuffer
from receiver.stores.base import Store
from receiver.stores.sql.clocks import LEAST_STEP, REFRESH_EVERY, SETTLES_WITHIN, ClockStep

LOOK_EVERY = 2.0  # seconds
LIMIT_EVERY = 60_000  # ms between two checks for schedules too far in the future
REPORTED_FOR = 86_400_000  # ms for which a step is shown to people
DRIFT = 500  # ms; after a smaller change, the record is not read
TRIES = 3  # attempts to read both clocks without an interruption in between
INTERRUPTION = 50  # ms
ROUND_TRIP = 1_000  # ms; a slower response of the database server is too inexact

log = Logger()


def recent_step(store: Store, now: int) -> ClockStep | None:
    """Return the newest correction of the last day. Raises StoreUnavailable."""
    since = now - REPORTED_FOR
    found = [step for step in store.clocks.clock_steps(since) if since <= step.at <= now]
    return found[-1] if found else None


class ClockWatch:
    """Watches the record's clock in one process. Thread-safe."""

    def __init__(
        self,
        store: Store,
        meter: MetricBuffer | None = None,
        *,
        wall: Callable[[], int] = clock.wall_ms,
        elapsed: Callable[[], int] = clock.elapsed_ms,
        boot: str | None = None,
        follow: Callable[[int | None], None] = clock.follow,
    ) -> None:
        self._store = store
        self._meter = meter
        self._wall, self._elapsed, self._set_clock = wall, elapsed, follow
        self._boot = boot or clock.boot_id()
        self._has_server_clock = False
        self._known: int | None = None  # the recorded offset
        self._suspected: int | None = None  # an offset that the next call has to confirm
        self._limit_at = self._refresh_at = 0
        self._lock = threading.Lock()

    def look(self) -> ClockStep | None:
        """Compare the clocks; correct a step unless another process has, and return it.

        A process that follows a server's clock corrects a step only at the second call in a row: by
        then, every other process follows the changed clock as well. Raises StoreUnavailable.
        """
        with self._lock:
            offset = self._offset()
            if offset is None:
                return None
            step = self._compared(offset)
            if self._suspected is None:
                self._limit(offset)
            return step

    def follow(self) -> None:
        """Follow the record's clock from now on, without corrections. Raises StoreUnavailable."""
        self._offset()

    def uncorrected(self) -> str | None:
        """Describe a step that is not corrected yet; None if there is none.

        Raises StoreUnavailable.
        """
        with self._lock:
            offset = self._offset()
        if offset is None:
            return None
        now = self._elapsed() + offset
        by = self._store.clocks.clock_step(self._boot, offset, now)
        return ClockStep(now, by, 0).text if by else None

    def _offset(self) -> int | None:
        """Return the record's clock minus the time since boot; None if it cannot be determined.

        The record's clock is followed from now on.
        """
        for _ in range(TRIES):
            before = self._elapsed()
            server = self._store.database.server_clock()
            shown = self._wall() if server is None else server
            took = self._elapsed() - before
            self._has_server_clock = server is not None
            if took <= (ROUND_TRIP if self._has_server_clock else INTERRUPTION):
                offset = shown - before - took // 2
                self._set_clock(offset if self._has_server_clock else None)
                return offset
        return None

    def _compared(self, offset: int) -> ClockStep | None:
        """Correct a step of the clock to this offset, and return it; None if there is none."""
        change = 0 if self._known is None else abs(offset - self._known)
        elapsed = self._elapsed()
        is_fresh = not self._has_server_clock or elapsed < self._refresh_at
        if self._known is not None and change < DRIFT and is_fresh:
            self._suspected = None
            return None
        if change >= LEAST_STEP and self._has_server_clock and not self._is_confirmed(offset):
            self._suspected = offset
            return None
        now, shared = elapsed + offset, self._has_server_clock
        settles = not shared and elapsed < SETTLES_WITHIN
        step = self._store.clocks.correct_clock(
            self._boot, offset, now, settles=settles, shared=shared
        )
        if step is not None:
            self._report(step)
        elif (self._known is None or change >= LEAST_STEP) and self._store.clocks.clock_step(
            self._boot, offset, now
        ):
            self._suspected = offset  # another machine also has to notice the step
            return None
        self._known, self._suspected = offset, None
        self._refresh_at = elapsed + REFRESH_EVERY
        return step

    def _is_confirmed(self, offset: int) -> bool:
        return self._suspected is not None and abs(offset - self._suspected) < LEAST_STEP

    def _report(self, step: ClockStep) -> None:
        log.warning(
            "the clock was set; schedules were moved",
            by_s=step.by_ms / 1000,
            moved_s=step.moved_ms / 1000,
        )
        if self._meter is not None:
            self._meter.count(CLOCK_STEPS, "back" if step.by_ms < 0 else "forward")

    def _limit(self, offset: int) -> None:
        """Make schedules due that are further in the future than the code ever sets them."""
        elapsed = self._elapsed()
        if elapsed < self._limit_at:
            return
        if made_due := self._store.clocks.limit_schedules(elapsed + offset):
            log.warning(
                "what was scheduled later than possible is due; was the clock set?", rows=made_due
            )
        self._limit_at = elapsed + LIMIT_EVERY
