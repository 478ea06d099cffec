"""Shows progress on standard error: an animation on a terminal, one line per change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


class TaskProgress:
    """Shows the progress of one task as lines, with the seconds since the start."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()

    def show_task(self, task: Task) -> None:
        """Show the new status of the task."""
        self.show_line(f"task {task.id}: {task.status}")

    def show_line(self, line: str) -> None:
        """Show a message beside the progress."""
        click.echo(f"{time.monotonic() - self._started_at:5.1f} s  {readable(line)}", err=True)


class _Spinner(TaskProgress):
    """Shows the status of the task beside an animation."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def show_task(self, task: Task) -> None:
        bar = self._progress.task_ids[0]
        self._progress.update(bar, description=f"task {task.id}: {task.status}")

    def show_line(self, line: str) -> None:
        self._progress.console.print(readable(line), markup=False, highlight=False)


@contextmanager
def task_progress(activity: str) -> Iterator[TaskProgress]:
    """Show the progress of one task; `activity` is displayed until its first status."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield TaskProgress()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(activity, total=None)
        yield _Spinner(progress)


@contextmanager
def batch_progress(total: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the line of one of `total` rows, or advances a bar.

    An empty line is not shown.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda line: click.echo(readable(line), err=True) if line else None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda _: progress.advance(bar)
