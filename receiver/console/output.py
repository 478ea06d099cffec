"""Prints JSON, tables, findings and progress, without secrets and terminal control characters."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TypeVar

import click

from receiver.console import terminal
from receiver.doctor.findings import Finding, Verdict
from receiver.text import display

COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}
GAP, INDENT = 2, 4  # characters, in tables that are wider than the terminal
Row = TypeVar("Row")
ID_KEPT = 10  # characters at the end of an id, which are random and therefore unique
LONGEST_CELL = 200  # characters of text from outside; `--json` shows the whole text


class _Filter:
    """The function that all output of this process passes through."""

    hide: Callable[[str], str] = staticmethod(str)


def hide_secrets(hide: Callable[[str], str]) -> None:
    """Pass all output through this function from now on, to hide known secrets."""
    _Filter.hide = staticmethod(hide)


def as_json(document: Any) -> None:
    """Print one JSON document."""
    print(_Filter.hide(display.json_readable(document)))


def as_json_lines(documents: Iterable[Any]) -> None:
    """Print each JSON document on a line of its own, immediately."""
    for document in documents:
        print(_Filter.hide(display.json_readable(document, indent=None)))
    sys.stdout.flush()


def show_rows(
    rows: Sequence[Row],
    to_json: Callable[[Row], Any],
    show: Callable[[Sequence[Row]], None],
    *,
    is_json: bool,
    cursor: int | None = None,
) -> None:
    """Print the rows as a JSON list, or else with `show`.

    If there is a `cursor`, print on standard error the option for the next page.
    """
    if is_json:
        as_json([to_json(row) for row in rows])
    else:
        show(rows)
    if cursor is not None:
        click.echo(f"there are older rows; continue with --cursor {cursor}", err=True)


@contextmanager
def progress(description: str) -> Iterator[Callable[[int], None]]:
    """Show progress while the block runs, if standard error is a terminal.

    The block receives a function that adds a number of finished items.
    """
    from rich.console import Console  # noqa: PLC0415 - slow, and only these lines need them
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    with Progress(
        *(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}")),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not sys.stderr.isatty(),
    ) as bars:
        bar = bars.add_task(description, total=None)  # the total is not known
        yield lambda number: bars.advance(bar, number)


def show_finding(finding: Finding) -> None:
    """Print the verdict of a check, the result, and what to do."""
    verdict = click.style(f"{finding.verdict:<8}", fg=COLOURS[finding.verdict])
    todo = f"; {finding.todo}" if finding.todo else ""
    text = plain(f"{finding.check:<12} {finding.said}{todo}")
    click.echo(f"{verdict} {terminal.fitting(text, sys.stdout, 9, 22)}")


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    if_empty: str,
    *,
    numbers: Collection[str] = (),
    ids: Collection[str] = (),
) -> None:
    """Print a table on a terminal, else a line of tab-separated values for each row.

    The first line has the names of the columns. On a terminal, columns in `numbers` are
    right-aligned, and those in `ids` are abbreviated if the table does not fit otherwise. None is
    an empty cell. If there are no rows, print `if_empty`; in a pipe, print it on standard error.
    """
    cells = [[plain("" if cell is None else str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [columns, *cells]:
            click.echo("\t".join(row))
    if not cells:
        click.echo(if_empty, err=not sys.stdout.isatty())
    elif sys.stdout.isatty():
        most = shutil.get_terminal_size().columns
        if sum(_widths([columns, *cells])) + GAP * (len(columns) - 1) > most:
            places = [place for place, name in enumerate(columns) if name in ids]
            for row in cells:
                for place in places:
                    row[place] = abbreviated(row[place])
        _print_fitting(most, columns, cells, numbers)


def abbreviated(task_id: str) -> str:
    """Return the end of an id, by which every command finds the task."""
    return task_id if len(task_id) <= ID_KEPT + 1 else f"…{task_id[-ID_KEPT:]}"


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column."""
    from rich.cells import cell_len  # noqa: PLC0415 - only tables on a terminal need it

    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _print_fitting(
    most: int,
    names: Sequence[str],
    cells: Sequence[Sequence[str]],
    numbers: Collection[str],
) -> None:
    """Print the columns that fit in `most` characters, and the other cells below each row."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - as above

    rows = [names, *cells]
    widths = _widths(rows)
    ends = accumulate(width + GAP for width in widths)
    fitting = max(1, sum(end - GAP <= most for end in ends))
    for row in rows:
        padded = [
            " " * (width - cell_len(cell)) + cell if name in numbers else set_cell_size(cell, width)
            for name, cell, width in zip(names[:fitting], row, widths, strict=False)
        ]
        line = (" " * GAP).join(padded).rstrip()
        has_bold = row is names and os.environ.get("TERM") != "dumb"
        click.echo(click.style(line, bold=True) if has_bold else line)
        others = zip(names[fitting:], row[fitting:], strict=True)
        text = (" " * GAP).join(f"{name}: {cell}" for name, cell in others if cell)
        for below in _lines(text, most, INDENT) if row is not names else ():
            click.echo(" " * INDENT + below)


def _lines(text: str, width: int, indent: int) -> list[str]:
    """Break the text between words. A longer word, such as a URL, has a line of its own."""
    return textwrap.wrap(
        text, max(1, width - indent), break_long_words=False, break_on_hyphens=False
    )


def print_line(text: str, indent: int = INDENT) -> None:
    """Print the text; on a terminal, break it between words and indent the lines after the first.

    In a pipe, the text is one line.
    """
    click.echo(terminal.fitting(plain(text), sys.stdout, 0, indent))


def print_lines(lines: Iterable[str], indent: int) -> None:
    """Print the lines as `print_line` does, but as one block, which no other output interrupts."""
    shown = (terminal.fitting(plain(line), sys.stdout, 0, indent) for line in lines)
    click.echo("\n".join(shown))


def plain(text: str | None) -> str:
    """Return text from outside on one line, without secrets and terminal control characters."""
    return display.plain(_Filter.hide(text or ""))


def cut(text: str | None) -> str:
    """Return text from outside as `plain` does, shortened for a table."""
    shown = plain(text)  # before the text is shortened, because only a whole secret is recognised
    return shown if len(shown) <= LONGEST_CELL else f"{shown[:LONGEST_CELL]}…"
