"""Shows progress on standard error: an animation on a terminal, one line per change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from receiver.tasks import Task
from submitter.text import readable

if TYPE_CHECKING:
    from rich.progress import Progress


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
    if not sys.stderr.isatty():
        yield TaskProgress()
        return
    from rich import progress as rich  # noqa: PLC0415 - slow, and only a terminal needs it
    from rich.console import Console  # noqa: PLC0415

    description = rich.TextColumn("{task.description}", markup=False)
    columns = (rich.SpinnerColumn(), description, rich.TimeElapsedColumn())
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(activity, total=None)
        yield _Spinner(progress)


@contextmanager
def batch_progress(total: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the line of one of `total` rows, or advances a bar.

    An empty line is not shown.
    """
    if not sys.stderr.isatty():
        yield lambda line: click.echo(readable(line), err=True) if line else None
        return
    from rich import progress as rich  # noqa: PLC0415 - as above
    from rich.console import Console  # noqa: PLC0415

    columns = (rich.BarColumn(), rich.MofNCompleteColumn(), rich.TimeElapsedColumn())
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda _: progress.advance(bar)
