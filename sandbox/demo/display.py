"""Shows the events: as a live table on a terminal, otherwise as one line for each event."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sandbox.demo.activity import Event

COLOURS = {"succeeded": "green", "delivered": "green", "failed": "red", "abandoned": "red"}

MIN_WIDTH = 40  # characters: that of the title, which would be broken otherwise
DETAILS = 39  # characters before the details of a line of `receiver tasks show`


class Display(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, events: Sequence[Event]) -> None:
        """Show new events, which are sorted by time.

        Times are shown as seconds since the first event, according to the record.
        """


def for_output() -> Display:
    return LiveTable() if sys.stdout.isatty() else Lines()


class LiveTable:
    def __init__(self) -> None:
        self._events: list[Event] = []
        self._live = Live("", console=Console(), refresh_per_second=8)  # nothing until an event

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, events: Sequence[Event]) -> None:
        if events:
            self._events += events
            self._live.update(table(self._events), refresh=True)


class Lines:
    def __init__(self) -> None:
        self._started_at: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def show(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._started_at is None:
                self._started_at = event.at
            print(line(event, self._started_at), flush=True)


def line(event: Event, started_at: int) -> str:
    """Return the line that shows an event, with the seconds since `started_at`."""
    name = f"{event.reference} {event.hook}" if event.hook else event.reference
    is_failed = event.hook is not None and event.outcome != "delivered"
    answer = f": {event.answer[:40]}" if is_failed and event.answer else ""
    return f"{seconds(event, started_at)} s  {name:<18} {event.outcome}{answer}"


def fitting(text: str) -> str:
    """Return a line of a timeline; on a terminal, broken between words to fit its width."""
    if not sys.stdout.isatty():
        return text
    width = max(shutil.get_terminal_size().columns, DETAILS + 20)
    return "\n".join(
        textwrap.wrap(
            text,
            width,
            subsequent_indent=" " * DETAILS,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def seconds(event: Event, started_at: int) -> str:
    return f"{(event.at - started_at) / 1000:5.1f}"


def table(events: Sequence[Event]) -> Table:
    """Return a row for each task, with its latest status and the latest attempt of each hook."""
    ordered = sorted(events, key=lambda event: event.at)
    started_at = ordered[0].at if ordered else 0
    hooks = sorted({event.hook for event in ordered if event.hook})
    cells = {}
    for event in ordered:
        at = seconds(event, started_at).strip()
        # Two lines, so that the table fits into 80 columns.
        cells[event.reference, event.hook] = f"{_coloured(event.outcome)}\n{at} s"
    grid = Table(
        title="What the receiver recorded, and when", title_justify="left", min_width=MIN_WIDTH
    )
    for heading in ("reference", "provider", "status", *hooks):
        grid.add_column(heading)
    for reference, provider in sorted({(event.reference, event.provider) for event in ordered}):
        states = [cells.get((reference, hook), "-") for hook in (None, *hooks)]
        grid.add_row(reference, provider, *states)
    return grid


def _coloured(outcome: str) -> str:
    return f"[{COLOURS[outcome]}]{outcome}[/]" if outcome in COLOURS else outcome
