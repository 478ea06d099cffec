"""Prints JSON, tables, findings and progress, without secrets and terminal control characters."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TypeVar

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from receiver.doctor.findings import Finding, Verdict
from receiver.text import display

COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}
GAP, INDENT = 2, 4  # characters, in tables that are wider than the terminal
Row = TypeVar("Row")
LONGEST_CELL = 200  # characters of text from outside; `--json` shows all of it


class _Filter:
    """The function that all output of this process passes through."""

    hide: Callable[[str], str] = staticmethod(str)


def hide_secrets(hide: Callable[[str], str]) -> None:
    """From now on, hide the known secrets in all output with this function."""
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

    If there is a `cursor`, print on standard error how to get the next page.
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
    """Print the verdict of a check, what was found, and what to do."""
    verdict = click.style(f"{finding.verdict:<8}", fg=COLOURS[finding.verdict])
    todo = f"; {finding.todo}" if finding.todo else ""
    text = plain(f"{finding.check:<12} {finding.said}{todo}")
    click.echo(f"{verdict} {_wrapped(text, 9, 22)}")


def _wrapped(text: str, before: int, indent: int) -> str:
    """Break the text between words on a terminal; `before`: the width of what precedes it.

    A text with a program in quotes is not broken, because it could not be pasted otherwise.
    """
    if not sys.stdout.isatty() or " -c " in text:
        return text
    width = max(1, _console().width - indent)
    lines = textwrap.wrap(
        " " * before + text,
        width + indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)[before:]


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], if_empty: str) -> None:
    """Print one line for each row, or `if_empty` if there are no rows. None is an empty cell.

    On a terminal, the columns that do not fit are printed below their row.
    """
    cells = [[plain("" if cell is None else str(cell)) for cell in row] for row in rows]
    console = _console()
    if not cells:
        console.print(if_empty)
    else:
        _print_fitting(console, columns, cells)


def _print_fitting(console: Console, names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print the columns that fit, and the other cells with their names below each row.

    In a pipe, every column fits, so that each row is one line.
    """
    rows = [names, *cells]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    ends = accumulate(width + GAP for width in widths)
    fitting = max(1, sum(end - GAP <= console.width for end in ends))
    if not sys.stdout.isatty():
        fitting = len(names)
    for row in rows:
        padded = map(set_cell_size, row[:fitting], widths)
        style = "bold" if row is names else None
        console.print((" " * GAP).join(padded).rstrip(), style=style, soft_wrap=True)
        others = zip(names[fitting:], row[fitting:], strict=True)
        text = (" " * GAP).join(f"{name}: {cell}" for name, cell in others if cell)
        lines = textwrap.wrap(text, max(1, console.width - INDENT), break_on_hyphens=False)
        for line in lines if row is not names else ():
            console.print(" " * INDENT + line, soft_wrap=True)


def _console() -> Console:
    """Return a console; if it is not a terminal, lines may be long, because pipes can cut them."""
    width = None if sys.stdout.isatty() else 200
    return Console(highlight=False, emoji=False, markup=False, width=width)


def print_line(text: str) -> None:
    """Print the text on one line, however long it is."""
    _console().print(plain(text), soft_wrap=True)


def plain(text: str | None) -> str:
    """Return text from outside on one line, without secrets and terminal control characters."""
    return display.plain(_Filter.hide(text or ""))


def cut(text: str | None) -> str:
    """Return text from outside as `plain` does, shortened for a table."""
    shown = plain(text)  # before it is shortened: only a whole secret is recognised
    return shown if len(shown) <= LONGEST_CELL else f"{shown[:LONGEST_CELL]}…"
