"""A machine whose clock a test can set."""

from __future__ import annotations

from receiver.observability.metrics import MetricBuffer
from receiver.processes.clock_watch import ClockWatch
from receiver.stores.base import Store
from receiver.stores.sql.clocks import SETTLES_WITHIN, ClockStep


class Machine:
    """A machine. `shown` is its clock, and `up` the time since its boot, both in ms."""

    def __init__(self, shown: int, boot: str = "boot-1", up: int = SETTLES_WITHIN) -> None:
        self.shown, self.boot, self.up = shown, boot, up

    def wait(self, ms: int) -> None:
        """Let time pass; a suspended machine does not notice it."""
        self.shown += ms
        self.up += ms

    def set_clock(self, by_ms: int) -> None:
        self.shown += by_ms

    def watch(self, store: Store, meter: MetricBuffer | None = None) -> ClockWatch:
        """Return the clock watch of a process that starts now on this machine."""
        return ClockWatch(
            store,
            meter,
            wall=lambda: self.shown,
            elapsed=lambda: self.up,
            boot=self.boot,
            follow=lambda _: None,
        )


def correction(watch: ClockWatch) -> ClockStep | None:
    """Return the correction after the next checks: with a server's clock, two have to agree."""
    return watch.look() or watch.look()
