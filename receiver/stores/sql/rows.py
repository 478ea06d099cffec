"""Converts rows to values, with the statements and conditions that several components use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from operator import attrgetter, itemgetter
from types import NoneType
from typing import Any, Protocol, TypeVar, get_args, get_origin, get_type_hints

from receiver.deliveries import Attempt, Delivery, File
from receiver.events import Callback, Source
from receiver.stores.sql.database import Session
from receiver.tasks import IdSource, Outcome, Task, Trust, is_problem_of
from receiver.text import display

T = TypeVar("T")
Conversion = tuple[int, Callable[[Any], Any]]


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

    @property
    def result(self) -> str:
        """The outcome in words. Only a repeated callback is called a duplicate.

        The response to a create request or a query often names a status that a callback reported.
        """
        is_response = self.callback.source is not Source.CALLBACK
        is_known = is_response and self.outcome is Outcome.DUPLICATE
        return "status already recorded" if is_known else self.outcome.value

    def may_be_accepted(self, task: Task) -> bool:
        """Return whether the callback still names another provider task than the one on record."""
        known = [task.provider_task_id, task.callback_task_id]
        names_known = any(is_problem_of(self.problem, task_id) for task_id in known if task_id)
        return self.outcome is Outcome.MISMATCH and not names_known


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A time range without its end, in integer milliseconds UTC. None: unlimited."""

    since: int | None = None
    until: int | None = None


ALWAYS = TimeRange()


@cache
def _reading(kind: type) -> tuple[Callable[[Row], Sequence[Any]], list[Conversion]]:
    """Return a function that reads the fields of a dataclass from a row, and their conversions.

    A conversion is the position of a field and its type, if the database stores another type.
    Keyword-only fields are no columns.
    """
    hints = get_type_hints(kind)
    types = {one.name: hints[one.name] for one in fields(kind) if not one.kw_only}
    conversions: list[Conversion] = []
    for position, hint in enumerate(types.values()):
        if get_origin(hint) is Mapping:
            conversions.append((position, json_object))
            continue
        alternatives = [one for one in get_args(hint) or (hint,) if one is not NoneType]
        if len(alternatives) == 1 and issubclass(alternatives[0], (bool, bytes, StrEnum)):
            conversions.append((position, alternatives[0]))
    return itemgetter(*types), conversions


def from_row(kind: type[T], row: Row, **more: Any) -> T:
    """Return a dataclass whose fields have the names of the row's columns.

    `more` has the values of its keyword-only fields.
    """
    values_in, conversions = _reading(kind)  # type: ignore[arg-type]
    values = list(values_in(row))
    for position, convert in conversions:
        if values[position] is not None:
            values[position] = convert(values[position])
        elif convert is json_object:
            values[position] = {}
    return kind(*values, **more)


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object in a column; an empty one if it is damaged."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


TASK_COLUMNS = tuple(field.name for field in fields(Task))  # all but `seq`, the row key

values_of_attempt = attrgetter(*(field.name for field in fields(Attempt)))

values_of_file = attrgetter(*(field.name for field in fields(File)))


def of_task(task: Task) -> dict[str, object]:
    """Return the values of the row of a task, by column.

    An id without a source came from the response to our create request.
    """
    source = task.id_source or IdSource.CREATE
    return {
        **{name: column_value(getattr(task, name)) for name in TASK_COLUMNS},
        "id_source": str(source) if task.provider_task_id else None,
    }


def column_value(value: object) -> object:
    """Return a value as both drivers store it."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Mapping):
        return json.dumps(value, separators=(",", ":")) if value else None
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
            headers={
                display.storable(name): display.storable(str(value))
                for name, value in json_object(row["headers"]).items()
            },
            source=Source(row["source"]),
            trust=Trust(row["trust"]),
        ),
        outcome=Outcome(row["outcome"]),
        repeats=row["repeats"],
        problem=row["problem"],
    )


def grouped(kind: type[T], found: Iterable[Row]) -> dict[int, tuple[T, ...]]:
    """Return the rows as dataclasses, grouped by the id of their delivery."""
    groups: dict[int, list[T]] = {}
    for row in found:
        groups.setdefault(row["delivery"], []).append(from_row(kind, row))
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
    return [from_row(Delivery, row) for row in found]


SELECT_DELIVERIES = """
select d.*, t.id as task_id, tr.status as status
from deliveries d join transitions tr on tr.id = d.transition join tasks t on t.seq = tr.task
"""

SELECT_CALLBACKS = """
select c.*, t.id as task_id from callbacks c left join tasks t on t.seq = c.task
"""
