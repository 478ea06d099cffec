"""Prints records: tables, and the timeline of a task."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from receiver.clock import now_ms
from receiver.config.hooks_file import HEARABLE, HookEntry
from receiver.console.output import abbreviated, cut, plain, print_line, show_table
from receiver.deliveries import Delivery, State, Subscription, evidence
from receiver.endpoints import Circuit
from receiver.stores.sql.activity import Activity, ActivityKind, Rejection
from receiver.stores.sql.rows import StoredCallback
from receiver.tasks import Task
from receiver.text.display import counted, elapsed, json_readable, rfc3339

if TYPE_CHECKING:  # most commands need neither
    from receiver.stores.sql.endpoint_status import EndpointStatus
    from receiver.stores.sql.queries import TaskHistory

MISMATCH_ADVICE = (
    "names another provider task and changed nothing. If it is the right task: "
    "receiver replay --accept {id}"
)
ACTIVITY_INDENT = 21  # characters: the time
KIND_NAMES: dict[str, str] = {ActivityKind.MOVE: "status"}  # the JSON has `move`
TIMELINE_INDENT = 39  # characters before the details of a line
TIMES = ("created", "received", "due", "due or ended", "when", "since", "next attempt")  # columns
Row = TypeVar("Row")
Moment = tuple[int, str, str]  # the instant (ms UTC), what happened, and details


def _show(
    rows: Iterable[Row], if_empty: str, columns: Mapping[str, Callable[[Row], object]]
) -> None:
    """Print a table.

    `columns` maps the name of a column to a function that returns a row's cell.
    """
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    is_for_people = sys.stdout.isatty()  # scripts read the names in a pipe, so they stay
    names = [f"{name} (UTC)" if name in TIMES and is_for_people else name for name in columns]
    show_table(names, cells, if_empty, ids=("task",))


def show_tasks(tasks: Iterable[Task]) -> None:
    columns: dict[str, Callable[[Task], object]] = {
        "task": lambda task: task.id,
        "provider": lambda task: task.provider,
        "reference": lambda task: cut(task.reference),
        "status": lambda task: task.status + _marks(task),
        "created": lambda task: _second(task.created_at),
        "reason": lambda task: cut(task.reason),
    }
    _show(tasks, "No tasks.", columns)


def _marks(task: Task) -> str:
    marks = ("conflict", task.conflict), ("mismatch", task.mismatched_at is not None)
    return "".join(f" ({mark})" for mark, is_set in marks if is_set)


def show_callbacks(callbacks: Iterable[StoredCallback]) -> None:
    columns: dict[str, Callable[[StoredCallback], object]] = {
        "id": lambda stored: stored.id,
        "task": lambda stored: stored.callback.task_id,
        "source": lambda stored: stored.callback.source,
        "outcome": lambda stored: stored.outcome,
        "repeats": lambda stored: stored.repeats,
        "received": lambda stored: _second(stored.callback.received_at),
        "problem": lambda stored: cut(stored.problem),
    }
    _show(callbacks, "No callbacks.", columns)


def show_deliveries(
    deliveries: Iterable[Delivery], now: int, hooks: Collection[str] | None = None
) -> None:
    """Print deliveries. `hooks`: the names in the hooks file; None if they are not known."""
    columns: dict[str, Callable[[Delivery], object]] = {
        "id": lambda delivery: delivery.id,
        "task": lambda delivery: delivery.task_id,
        "status": lambda delivery: delivery.status,
        "hook": lambda delivery: delivery.hook,
        "state": lambda delivery: delivery.state,
        "attempts": lambda delivery: delivery.attempts,
        "due": lambda delivery: _due(delivery, now, hooks),
        "ended": lambda delivery: _second(delivery.ended_at),
    }
    if sys.stdout.isatty():  # no delivery has both times, and two columns need over 80 characters
        due, ended = columns.pop("due"), columns.pop("ended")
        columns["due or ended"] = lambda delivery: ended(delivery) or due(delivery)
    _show(deliveries, "No deliveries.", columns)


def _due(delivery: Delivery, now: int, hooks: Collection[str] | None) -> str:
    due = _second(delivery.due_at)
    if delivery.is_waiting(now):
        return f"after {delivery.after}" + (f", or {due}" if due else "")
    if hooks is not None and delivery.lacks_hook(hooks):
        return "waits: its hook is not in the hooks file"
    return due


def show_rejections(rejections: Iterable[Rejection]) -> None:
    columns: dict[str, Callable[[Rejection], object]] = {
        "when": lambda rejection: _second(rejection.at),
        "address": lambda rejection: cut(rejection.address),
        "times": lambda rejection: rejection.count,
        "request": lambda rejection: cut(f"{rejection.method} {rejection.path}"),
        "reason": lambda rejection: cut(rejection.reason),
    }
    _show(rejections, "No request was rejected.", columns)


def show_endpoints(statuses: Sequence[EndpointStatus]) -> None:
    columns: dict[str, Callable[[EndpointStatus], object]] = {
        "hook": lambda status: status.hook,
        "circuit": lambda status: status.state,
        "failures in a row": lambda status: status.failures,
        "since": lambda status: _second(
            status.endpoint.disabled_at or status.endpoint.paused_at or status.failing_since
        ),
        "next attempt": _next_attempt,
        "last response": lambda status: cut(status.last_response),
    }
    if any(status.limits for status in statuses):
        columns["limits"] = _limits
    _show(statuses, "No hooks.", columns)


def _limits(status: EndpointStatus) -> str:
    """Return the limits of a hook, and the limit that its deliveries are waiting for."""
    wait = status.wait(_second)
    return f"{status.limits}; held by {wait}" if wait else str(status.limits)


def _next_attempt(status: EndpointStatus) -> str:
    """Return when a delivery tests the endpoint; empty if deliveries are sent or wait."""
    if status.circuit is Circuit.HALF_OPEN:
        return "as soon as one is due"
    return _second(status.endpoint.retry_at) if status.circuit is Circuit.OPEN else ""


def show_hooks(hooks: Sequence[tuple[HookEntry, Sequence[str]]]) -> None:
    """Print the hooks, each with the problems that make it unusable, and its limits."""
    has_limits = any(entry.limits for entry, _ in hooks)
    rows = (
        (
            entry.name,
            entry.type,
            ", ".join(status for status in HEARABLE if status in entry.subscription.on),
            condition_of(entry.subscription),
            _awaited(entry.subscription),
            "; ".join(problems),  # not shortened, because it may end with a command
            *([str(entry.limits)] if has_limits else []),
        )
        for entry, problems in hooks
    )
    columns = ["hook", "type", "receives", "only for", "after", "problems"]
    show_table(columns + ["limits"] * has_limits, rows, "No hooks.")


def condition_of(subscription: Subscription) -> str:
    """Return the conditions of the hook: providers, the pattern of references, and the filter."""
    match = [] if subscription.match == "*" else [subscription.match]
    where = [] if subscription.where is None else [str(subscription.where)]
    return " ".join([*sorted(subscription.providers), *match, *where])


def _awaited(subscription: Subscription) -> str | None:
    """Return the hook that this one waits for, and the maximum wait."""
    if subscription.after is None or subscription.wait_ms is None:
        return subscription.after
    return f"{subscription.after} (up to {subscription.wait_ms / 1000:g} s)"


def show_activity(rows: Iterable[Activity]) -> None:
    """Print each row immediately: a line with tabs in a pipe, else one that is easy to read."""
    for row in rows:
        hook = f"{row.hook} {row.status} " if row.hook else ""
        details = cut((row.said.strip().splitlines() or [""])[-1])
        cells = (
            _second(row.at),
            KIND_NAMES.get(row.kind, row.kind),
            row.task_id or "-",
            cut(row.reference) or "-",
            f"{hook}{row.outcome}",
            details,
        )
        if sys.stdout.isatty():
            at, kind, task, *others = cells
            line = "  ".join([at, f"{kind:<8}", abbreviated(task), *others])
            print_line(line.rstrip(), indent=ACTIVITY_INDENT)
        else:
            click.echo("\t".join(map(plain, cells)))
    sys.stdout.flush()


def show_activity_header() -> None:
    """Print the names of the columns of `show_activity`, if its lines have tabs."""
    if not sys.stdout.isatty():
        click.echo("when\tkind\ttask\treference\toutcome\tdetails")


def show_timeline(history: TaskHistory) -> None:
    """Print the timeline of one task in order, with the seconds since its creation.

    Deliveries that wait follow without a time.
    """
    task = history.task
    print_line(f"task {task.id}  {task.provider}  {task.reference or ''}  {task.status}")
    if task.model is not None:
        print_line(f"  model {task.model}")
    if task.metadata:
        print_line(f"  metadata {cut(json_readable(dict(task.metadata), indent=None))}")
    if history.forgotten_at is not None:
        print_line(f"  forgotten at {_second(history.forgotten_at)} UTC: its contents were erased")
    for at, event, details in sorted(_moments(history), key=lambda moment: moment[0]):
        since = at - task.created_at
        passed = f"{'-' if since < 0 else '+'}{elapsed(since)}"
        print_line(f"  {passed:>12}  {event:<22} {details}".rstrip(), indent=TIMELINE_INDENT)
    now = now_ms()
    for delivery in history.deliveries:
        if delivery.state is State.PENDING:
            event = f"  {delivery.hook} pending"
            wait = "" if delivery.is_waiting(now) else "due "
            details = f"{wait}{_due(delivery, now, None)}"
            print_line(f"  {'':>12}  {event:<22} {details}", indent=TIMELINE_INDENT)
    for stored in history.callbacks:
        if stored.may_be_accepted(task) and history.forgotten_at is None:
            print_line(f"  callback {stored.id} {MISMATCH_ADVICE.format(id=stored.id)}")


def _moments(history: TaskHistory) -> Iterator[Moment]:
    for move in history.transitions:
        trust = evidence(history.task, move)
        details = trust.text if trust else ""
        yield move.recorded_at, move.status, details + (", corrected" if move.corrected else "")
    for stored in history.messages:
        repeats = f", received {stored.repeats + 1} times" if stored.repeats else ""
        problem = f": {cut(stored.problem)}" if stored.problem else ""
        size = counted(len(stored.callback.body), "byte")
        details = f"{size}, {stored.result}{repeats}{problem}"
        yield stored.callback.received_at, f"  {stored.callback.source}", details
    for delivery in history.deliveries:
        for attempt in history.attempts.get(delivery.id, ()):
            answer = cut((attempt.answer.strip().splitlines() or [""])[-1])
            is_last = attempt.number == delivery.attempts
            dead = ", dead letter" if is_last and delivery.state is State.DEAD else ""
            details = f"{answer} ({elapsed(attempt.duration_ms)}{dead})"
            yield attempt.ended_at, f"  {delivery.hook} {attempt.outcome}", details
            if delivery.output and is_last:
                returned = json_readable(dict(delivery.output), indent=None)
                yield attempt.ended_at, f"  {delivery.hook} returned", cut(returned)


def _second(instant: int | None) -> str:
    return "" if instant is None else rfc3339(instant)[:19].replace("T", " ")
