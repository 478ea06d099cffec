"""How the record looks on a terminal: tables, and the timeline of one task."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from receiver.config.hooks_file import HEARABLE, HookEntry
from receiver.deliveries import Delivery, Subscription
from receiver.doctor.findings import Finding, Verdict
from receiver.endpoints import Circuit, Endpoint
from receiver.stores.sql.activity import Activity, Rejection
from receiver.stores.sql.queries import TaskHistory
from receiver.stores.sql.rows import StoredCallback
from receiver.tasks import Task
from receiver.text import display
from receiver.text.display import rfc3339

Moment = tuple[int, str, str]  # when (ms UTC), what, more about it
COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}
MISMATCH_ADVICE = (
    "names another provider task and changed nothing. If it is the right task: "
    "receiver replay --accept {id}"
)
GAP, INDENT = 2, 4  # characters, in tables that are wider than the terminal
SHOWN = 200  # characters of what others wrote; `--json` shows all of it


class _Shown:
    """The function that every output of this process passes through."""

    hide: Callable[[str], str] = staticmethod(str)


def hide_secrets(hide: Callable[[str], str]) -> None:
    """Use this function from now on to hide the known secrets in every output."""
    _Shown.hide = staticmethod(hide)


def as_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(_Shown.hide(display.json_readable(document)))


def as_json_lines(documents: Iterable[Any]) -> None:
    """A JSON document a line, at once: somebody waits for them."""
    for document in documents:
        print(_Shown.hide(display.json_readable(document, indent=None)))
    sys.stdout.flush()


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int], None]]:
    """Tell by the function that so many more are done: shown on a terminal, nowhere else.

    It goes to standard error: standard output is for results, and is left alone.
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
        bar = bars.add_task(doing, total=None)  # how many there will be, nobody knows
        yield lambda more: bars.advance(bar, more)


def show_tasks(tasks: Sequence[Task]) -> None:
    table = _table("task", "provider", "reference", "status", "created", "reason")
    for task in tasks:
        table.add_row(
            task.id,
            task.provider,
            _cut(task.reference),
            task.status + _marks(task),
            _short(task.created_at),
            _cut(task.reason),
        )
    _print(table, "No tasks.")


def _marks(task: Task) -> str:
    marks = ("conflict", task.conflict), ("mismatch", task.mismatched_at is not None)
    return "".join(f" ({mark})" for mark, is_set in marks if is_set)


def show_callbacks(found: Sequence[StoredCallback]) -> None:
    table = _table("id", "task", "source", "outcome", "repeats", "received", "problem")
    for stored in found:
        table.add_row(
            str(stored.id),
            stored.callback.task_id,
            stored.callback.source,
            stored.outcome,
            str(stored.repeats),
            _short(stored.callback.received_at),
            _cut(stored.problem),
        )
    _print(table, "No callbacks.")


def show_deliveries(
    found: Sequence[Delivery], now: int, hooks: Collection[str] | None = None
) -> None:
    """Print deliveries. `hooks`: the names in the hooks file; None if they are not known."""
    table = _table("id", "task", "status", "hook", "state", "attempts", "due")
    for delivery in found:
        due = _short(delivery.due_at)
        if delivery.is_waiting(now):
            due = f"after {delivery.after}" + (f", or {due}" if due else "")
        elif hooks is not None and delivery.lacks_hook(hooks):
            due = "waits: its hook is not in the hooks file"
        table.add_row(
            str(delivery.id),
            delivery.task_id,
            delivery.status,
            delivery.hook,
            delivery.state,
            str(delivery.attempts),
            due,
        )
    _print(table, "No deliveries.")


def show_rejections(found: Sequence[Rejection]) -> None:
    table = _table("when", "address", "times", "request", "reason")
    for rejection in found:
        table.add_row(
            _short(rejection.at),
            _cut(rejection.address),
            str(rejection.count),
            _cut(f"{rejection.method} {rejection.path}"),
            _cut(rejection.reason),
        )
    _print(table, "No request was refused.")


def show_endpoints(found: Sequence[Endpoint], now: int) -> None:
    table = _table("hook", "circuit", "failed in a row", "since", "tried again", "said")
    for endpoint in found:
        circuit = endpoint.circuit(now)
        table.add_row(
            endpoint.hook,
            circuit,
            str(endpoint.failures),
            _short(endpoint.disabled_at or endpoint.paused_at or endpoint.failing_since),
            _short(endpoint.retry_at) if circuit is Circuit.OPEN else "",
            _cut(endpoint.said),
        )
    _print(table, "No hooks.")


def show_finding(finding: Finding) -> None:
    """One check: how it stands, what was found, and what to do."""
    colour = COLOURS[finding.verdict]
    verdict = click.style(f"{finding.verdict:<8}", fg=colour)  # without colour but on a terminal
    todo = f"; {finding.todo}" if finding.todo else ""
    found = plain(f"{finding.check:<12} {finding.said}{todo}")
    click.echo(f"{verdict} {_wrapped(found, 9, 22)}")


def _wrapped(text: str, before: int, indent: int) -> str:
    """Break the text between words on a terminal; `before`: the characters that stand before it.

    A program in quotes stays whole, because it could not be pasted otherwise.
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


def show_hooks(found: Sequence[tuple[HookEntry, Sequence[str]]]) -> None:
    table = _table("hook", "type", "hears", "of", "after", "cannot be used")
    for entry, problems in found:
        heard = entry.subscription
        table.add_row(
            entry.name,
            entry.type,
            ", ".join(status for status in HEARABLE if status in heard.on),
            " ".join([*sorted(heard.providers), *([heard.match] if heard.match != "*" else [])]),
            _awaited(heard),
            plain("; ".join(problems)),  # whole: it may end with a command
        )
    _print(table, "No hooks.")


def _awaited(heard: Subscription) -> str | None:
    """Return the hook that this one waits for, and the maximum wait."""
    if heard.after is None or heard.wait_ms is None:
        return heard.after
    return f"{heard.after} (up to {heard.wait_ms / 1000:g} s)"


def show_happenings(found: Iterable[Activity]) -> None:
    """A line each, at once."""
    for one in found:
        hook = f"{one.hook} {one.status} " if one.hook else ""
        about = f"{one.task_id or '-'}  {_cut(one.reference) or '-'}"
        said = _cut((one.said.strip().splitlines() or [""])[-1])
        what = f"{hook}{one.outcome}"
        click.echo(plain(f"{_short(one.at)}  {one.kind:<8}  {about}  {what}  {said}".rstrip()))
    sys.stdout.flush()


def show_timeline(history: TaskHistory) -> None:
    """What happened to one task, in order, with the seconds since it was created."""
    task = history.task
    console = _console()
    _line(console, f"task {task.id}  {task.provider}  {task.reference or ''}  {task.status}")
    if task.model is not None:
        _line(console, f"  model {task.model}")
    start = task.created_at
    if history.forgotten_at is not None:
        _line(console, f"  forgotten at {_short(history.forgotten_at)}: its contents were erased")
    for at, what, more in sorted(_moments(history), key=lambda moment: moment[0]):
        _line(console, f"  {(at - start) / 1000:+9.3f} s  {what:<22} {more}".rstrip())
    for stored in history.callbacks:
        if stored.may_be_accepted(task) and history.forgotten_at is None:
            _line(console, f"  callback {stored.id} {MISMATCH_ADVICE.format(id=stored.id)}")


def _moments(history: TaskHistory) -> Iterator[Moment]:
    for move in history.transitions:
        note = f"rests on: {move.trust}" + (", corrected" if move.corrected else "")
        yield move.recorded_at, move.status, "" if move.status == "created" else note
    for stored in history.callbacks:
        again = f", came {stored.repeats + 1} times" if stored.repeats else ""
        problem = f": {_cut(stored.problem)}" if stored.problem else ""
        said = f"{len(stored.callback.body)} bytes, {stored.outcome}{again}{problem}"
        yield stored.callback.received_at, f"  {stored.callback.source}", said
    for delivery in history.deliveries:
        for attempt in history.attempts.get(delivery.id, ()):
            what = f"  {delivery.hook} {attempt.outcome}"
            took = attempt.duration_ms / 1000
            answer = attempt.answer.strip().splitlines() or [""]
            yield attempt.ended_at, what, f"{_cut(answer[-1])} ({took:.3f} s)"


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], otherwise: str) -> None:
    """Print one line a row, and below it what does not fit; `otherwise` if there are none."""
    table = _table(*columns)
    for row in rows:
        table.add_row(*row)
    _print(table, otherwise)


class _Table(Table):
    """A table whose cells cannot steer the terminal."""

    def add_row(self, *cells: Any, **how: Any) -> None:
        super().add_row(*(plain(cell) for cell in cells), **how)


def _table(*columns: str) -> Table:
    table = _Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column == "task", overflow="fold")
    return table


def _print(table: Table, otherwise: str) -> None:
    console = _console()
    if not table.row_count:
        console.print(otherwise)
    elif sys.stdout.isatty():
        _print_fitting(console, table)
    else:
        console.print(table)


def _print_fitting(console: Console, table: Table) -> None:
    """Print the columns that fit; below each row, indented, the others with their names."""
    names = [str(column.header) for column in table.columns]
    columns = [[str(cell or "") for cell in column.cells] for column in table.columns]
    rows = [names, *map(list, zip(*columns, strict=True))]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    ends = accumulate(width + GAP for width in widths)
    fitting = max(1, sum(end - GAP <= console.width for end in ends))
    for row in rows:
        padded = map(set_cell_size, row[:fitting], widths)
        style = "bold" if row is names else None
        console.print((" " * GAP).join(padded).rstrip(), style=style, soft_wrap=True)
        others = zip(names[fitting:], row[fitting:], strict=True)
        more = (" " * GAP).join(f"{name}: {cell}" for name, cell in others if cell)
        wrapped = textwrap.wrap(more, max(1, console.width - INDENT), break_on_hyphens=False)
        for line in wrapped if row is not names else ():
            console.print(" " * INDENT + line, soft_wrap=True)


def _console() -> Console:
    """Where nobody looks at a terminal, lines are as long as they are: pipes can cut them."""
    width = None if sys.stdout.isatty() else 200
    return Console(highlight=False, emoji=False, markup=False, width=width)


def _line(console: Console, text: str) -> None:
    console.print(plain(text), soft_wrap=True)


def plain(text: str | None) -> str:
    """Return text from outside on one line, without secrets and terminal control characters."""
    return display.plain(_Shown.hide(text or ""))


def _cut(text: str | None) -> str:
    """As much of what others wrote as a table has room for."""
    shown = plain(text)  # a secret is recognised only as a whole
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


def _short(instant: int | None) -> str:
    return "" if instant is None else rfc3339(instant)[:19].replace("T", " ")
