"""Shows how a task goes: a spinner with the time on a terminal, one line a change elsewhere.

All of it goes to standard error: standard output is for results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from receiver.tasks import Task
from submitter.text import readable


class ProgressDisplay(Protocol):
    """What is told while one waits."""

    def task(self, task: Task) -> None:
        """The task has another status now."""
        ...

    def note(self, line: str) -> None:
        """Something that happened on the side."""
        ...


@contextmanager
def task_progress(doing: str) -> Iterator[ProgressDisplay]:
    """Show progress as standard error allows."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(doing, total=None)
        yield _Spinner(progress)


@contextmanager
def batch_progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show how many of `total` have ended: a bar on a terminal, one line each elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda line: click.echo(readable(line), err=True)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda _: progress.advance(bar)


class _Lines:
    def __init__(self) -> None:
        self._began_at = time.monotonic()

    def task(self, task: Task) -> None:
        self.note(f"task {task.id}: {task.status}")

    def note(self, line: str) -> None:
        click.echo(f"{time.monotonic() - self._began_at:5.1f} s  {readable(line)}", err=True)


class _Spinner:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def task(self, task: Task) -> None:
        only = self._progress.task_ids[0]
        self._progress.update(only, description=f"task {task.id}: {task.status}")

    def note(self, line: str) -> None:
        self._progress.console.print(readable(line), markup=False, highlight=False)
