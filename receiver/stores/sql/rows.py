"""Converts rows to values, with the statements and conditions that several components use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from receiver.deliveries import Attempt, Delivery, File, State, Transition
from receiver.events import Callback, Source
from receiver.stores.sql.database import Session
from receiver.tasks import IdSource, Outcome, Status, Task, Trust, is_problem_of
from receiver.text import display

T = TypeVar("T")


class Row(Protocol):
    """A row of either database driver: values by column name."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class StoredCallback:
    """A callback on record. `repeats` counts how often the same bytes were received again."""

    id: int
    callback: Callback
    outcome: Outcome
    repeats: int
    problem: str | None = None

    def may_be_accepted(self, task: Task) -> bool:
        """Return whether it still names another provider task than the one on record."""
        known = [task.provider_task_id, task.callback_task_id]
        names_known = any(is_problem_of(self.problem, task_id) for task_id in known if task_id)
        return self.outcome is Outcome.MISMATCH and not names_known


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A time range without its end, in integer milliseconds UTC. None: unlimited."""

    since: int | None = None
    until: int | None = None


ALWAYS = TimeRange()

TASK_COLUMNS = tuple(field.name for field in fields(Task))  # all but `seq`, the row key


def task(row: Row) -> Task:
    """Return the task in a row of `tasks`."""
    return Task(
        id=row["id"],
        provider=row["provider"],
        status=Status(row["status"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        account=row["account"],
        provider_task_id=row["provider_task_id"],
        callback_task_id=row["callback_task_id"],
        id_source=None if row["id_source"] is None else IdSource(row["id_source"]),
        reference=row["reference"],
        model=row["model"],
        trust=Trust(row["trust"]),
        reason=row["reason"],
        cost=row["cost"],
        cost_unit=row["cost_unit"],
        conflict=bool(row["conflict"]),
        expects_callback=bool(row["expects_callback"]),
        asked=row["asked"],
        deadline_at=row["deadline_at"],
        given_up_at=row["given_up_at"],
        mismatched_at=row["mismatched_at"],
    )


def of_task(task: Task) -> dict[str, object]:
    """Return the values of the row of a task, by column.

    An id without a source came from the response to our create request.
    """
    source = task.id_source or IdSource.CREATE
    return {
        **{name: _column_value(getattr(task, name)) for name in TASK_COLUMNS},
        "id_source": str(source) if task.provider_task_id else None,
    }


def _column_value(value: object) -> object:
    """Return a value as both drivers store it."""
    if isinstance(value, bool):
        return int(value)
    return str(value) if isinstance(value, StrEnum) else value


def callback(row: Row) -> StoredCallback:
    """Return the callback in a row of SELECT_CALLBACKS."""
    return StoredCallback(
        id=row["id"],
        callback=Callback(
            provider=row["provider"],
            task_id=row["task_id"],
            body=bytes(row["body"]),
            received_at=row["received_at"],
            headers=_headers(row["headers"]),
            source=Source(row["source"]),
            trust=Trust(row["trust"]),
        ),
        outcome=Outcome(row["outcome"]),
        repeats=row["repeats"],
        problem=row["problem"],
    )


def _headers(text: str) -> dict[str, str]:
    """Return the headers of a message; none if they are damaged."""
    try:
        headers = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(headers, dict):
        return {}
    return {display.storable(name): display.storable(str(text)) for name, text in headers.items()}


def transition(row: Row) -> Transition:
    """Return the transition in a row of `transitions`."""
    return Transition(
        status=row["status"],
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        trust=Trust(row["trust"]),
        corrected=bool(row["corrected"]),
        revision=row["revision"],
    )


def delivery(row: Row) -> Delivery:
    """Return the delivery in a row of SELECT_DELIVERIES."""
    return Delivery(
        id=row["id"],
        task_id=row["task_id"],
        status=row["status"],
        hook=row["hook"],
        state=State(row["state"]),
        attempts=row["attempts"],
        retries_from=row["retries_from"],
        due_at=row["due_at"],
        after=row["after"],
        ended_at=row["ended_at"],
    )


def by_id(delivery: Delivery) -> int:
    """Return the key for sorting deliveries by id."""
    return delivery.id


def attempt(row: Row) -> Attempt:
    """Return the attempt in a row of `attempts`."""
    return Attempt(
        number=row["number"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        outcome=row["outcome"],
        answer=row["answer"],
    )


def of_attempt(attempt: Attempt) -> tuple[Any, ...]:
    """Return the values of the row of an attempt, without its delivery."""
    return (attempt.number, attempt.started_at, attempt.ended_at, attempt.outcome, attempt.answer)


def file(row: Row) -> File:
    """Return the file in a row of `files`."""
    return File(
        media_index=row["media_index"],
        url=row["url"],
        sha256=row["sha256"],
        size=row["size"],
        content_type=row["content_type"],
        thumbnail=None if row["thumbnail"] is None else bytes(row["thumbnail"]),
    )


def of_file(file: File) -> tuple[Any, ...]:
    """Return the values of the row of a file, without its delivery and attempt."""
    return (
        file.media_index,
        file.url,
        file.sha256,
        file.size,
        file.content_type,
        file.thumbnail,
    )


def grouped(found: Iterable[Row], make: Callable[[Row], T]) -> dict[int, tuple[T, ...]]:
    """Return the rows as values, grouped by the id of their delivery."""
    groups: dict[int, list[T]] = {}
    for row in found:
        groups.setdefault(row["delivery"], []).append(make(row))
    return {delivery: tuple(values) for delivery, values in groups.items()}


def filters(**wanted: object) -> tuple[str, list[object]]:
    """Return a condition with its values: columns equal the given values that are not None."""
    given: Mapping[str, object] = {k: v for k, v in wanted.items() if v is not None}
    return " and ".join(f"{column} = ?" for column in given) or "1 = 1", list(given.values())


def within(column: str, times: TimeRange) -> tuple[str, list[object]]:
    """Return further conditions, each after an "and", for a time within the range; their values."""
    bounds = {f"{column} >= ?": times.since, f"{column} < ?": times.until}
    given = {condition: value for condition, value in bounds.items() if value is not None}
    return "".join(f" and {condition}" for condition in given), list(given.values())


def any_of(column: str, values: Sequence[object]) -> str:
    """Return the condition that the column has one of these values."""
    return f"{column} in ({', '.join('?' * len(values)) or 'null'})"


def deliveries(session: Session, where: str, values: Sequence[Any]) -> list[Delivery]:
    """Return the deliveries `d` for which this condition holds."""
    found = session.execute(f"{SELECT_DELIVERIES} where {where}", values).fetchall()
    return [delivery(row) for row in found]


SELECT_DELIVERIES = """
select d.*, t.id as task_id, tr.status as status
from deliveries d join transitions tr on tr.id = d.transition join tasks t on t.seq = tr.task
"""

SELECT_CALLBACKS = """
select c.*, t.id as task_id from callbacks c left join tasks t on t.seq = c.task
"""
