"""Shows how the record moves: a live table on a terminal, one line a change elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sandbox.demo.record import Record

COLOURS = {"succeeded": "green", "delivered": "green", "failed": "red", "dead": "red"}


class Display(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, record: Record) -> None:
        """Tell what is new in `record`."""


def for_output() -> Display:
    return LiveTable() if sys.stdout.isatty() else Lines()


class LiveTable:
    def __init__(self) -> None:
        self._live = Live(table(Record()), console=Console(), refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, record: Record) -> None:
        self._live.update(table(record), refresh=True)


class Lines:
    def __init__(self) -> None:
        self._seen: dict[str, str] = {}
        self._began_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def show(self, record: Record) -> None:
        for key, value in states(record).items():
            if self._seen.get(key) != value:
                print(f"{time.monotonic() - self._began_at:5.1f} s  {key:<18} {value}", flush=True)
        self._seen = states(record)


def states(record: Record) -> dict[str, str]:
    """Return each task's status and each delivery's state, by a name to show."""
    shown = {}
    for task in sorted(record.tasks, key=lambda row: row.reference):
        shown[task.reference] = task.status
        for row in record.of(task):
            shown[f"{task.reference} {row.hook}"] = row.state
    return shown


def table(record: Record) -> Table:
    hooks = sorted({row.hook for row in record.deliveries})
    grid = Table(title="What the receiver knows", title_justify="left")
    for heading in ("reference", "provider", "status", *hooks):
        grid.add_column(heading)
    for task in sorted(record.tasks, key=lambda row: row.reference):
        by_hook = {row.hook: row.state for row in record.of(task)}
        cells = [_coloured(by_hook.get(hook, "-")) for hook in hooks]
        grid.add_row(task.reference, task.provider, _coloured(task.status), *cells)
    return grid


def _coloured(state: str) -> str:
    return f"[{COLOURS[state]}]{state}[/]" if state in COLOURS else state
