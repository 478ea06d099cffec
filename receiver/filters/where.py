"""A hook's `where` table: the conditions for the fields of an event; pure.

The fields are those of the event that a webhook receives, `Notice.as_json`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from receiver.filters.conditions import (
    LONGEST_SHOWN,
    Condition,
    InvalidCondition,
    Kind,
    compiled,
    is_condition,
    plain_value,
    written,
)
from receiver.tasks import Status, Trust
from receiver.text.display import one_line

MOST_CONDITIONS = 100
MOST_PARTS = 16  # of the name of a field
METADATA = ("task", "metadata")
MEDIA = "media"
PROVIDER = "task.provider"
_STATUSES = tuple(status.value for status in Status)


class _Field(NamedTuple):
    kind: Kind = Kind.TEXT
    choices: tuple[str, ...] = ()  # the only values; empty: any


FIELDS: Mapping[str, _Field] = {
    "id": _Field(),
    "type": _Field(choices=(*(f"task.{status}" for status in _STATUSES[1:]), "task.given_up")),
    "occurred_at": _Field(Kind.TIME),
    "trust": _Field(choices=tuple(trust.value for trust in Trust)),
    "corrected": _Field(Kind.BOOLEAN),
    "task.id": _Field(),
    PROVIDER: _Field(),
    "task.account": _Field(),
    "task.provider_task_id": _Field(),
    "task.reference": _Field(),
    "task.model": _Field(),
    "task.status": _Field(choices=_STATUSES),
    "task.reason": _Field(),
    "task.cost": _Field(Kind.NUMBER),
    "task.cost_unit": _Field(),
    "task.created_at": _Field(Kind.TIME),
    "task.given_up_at": _Field(Kind.TIME),
    "media.kind": _Field(),
    "media.index": _Field(),
    "media.url": _Field(),
    "media.expires_at": _Field(Kind.TIME),
}
_LATER = "is not known when the filter is evaluated, because files are downloaded later"
# Fields of the event that no filter can use, and the reason.
UNUSABLE: Mapping[str, str] = {
    "media.file": _LATER,
    "media.sha256": _LATER,
    "media.size": _LATER,
    "test": "is only in test events, and filters do not apply to those",
}
_TABLES = frozenset({("task",), (MEDIA,), METADATA})
Path = tuple[str, ...]  # the parts of the name of a field


class InvalidFilter(ValueError):
    """A `where` table with mistakes. `problems` has one for each field, by its name."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one condition of a subscription for an event."""

    key: str  # of the hooks file, such as `where.task.account`
    wanted: Any  # as in the hooks file
    found: Any  # in the event
    holds: bool


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """The condition for one field."""

    name: str  # such as `task.account`
    wanted: Any = field(hash=False)  # as in the hooks file
    # For each part of the path in the event (for `media.…`, in an output): the key, and the key if
    # it contains the rest of the name, because keys of the metadata may contain dots.
    keys: tuple[tuple[str, str], ...]
    condition: Condition = field(compare=False, repr=False)

    def values(self, document: Mapping[str, Any]) -> list[Any]:
        """Return the values of the field in an event or an output; [None] if there is none.

        Lists in the metadata are replaced by their elements.
        """
        nodes: list[Any] = [document]
        whole: list[Any] = []
        for key, rest in self.keys:
            tables = [node for node in nodes if isinstance(node, dict)]
            nodes = list(_elements([table[key] for table in tables if key in table]))
            if rest != key:
                whole += [table[rest] for table in tables if rest in table]
        return [*nodes, *_elements(whole)] or [None]

    def holds(self, document: Mapping[str, Any]) -> bool:
        """Return whether a value of the field in an event or an output matches."""
        return any(map(self.condition, self.values(document)))

    def __str__(self) -> str:
        return f"{self.name} = {written(self.wanted)}"


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions of a hook's `where` table, all of which an event has to meet.

    One output has to meet all conditions for outputs.
    """

    of_event: tuple[FieldCondition, ...]
    of_outputs: tuple[FieldCondition, ...]

    @property
    def conditions(self) -> tuple[FieldCondition, ...]:
        """All conditions: those for the event come first."""
        return self.of_event + self.of_outputs

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Return whether the event, as a webhook receives it, meets all conditions."""
        return all(one.holds(event) for one in self.of_event) and (
            not self.of_outputs or self._has_output(event)
        )

    def checks(self, event: Mapping[str, Any]) -> Iterator[Check]:
        """Yield whether the event meets each condition."""
        for one in self.of_event:
            values = one.values(event)
            found = values[0] if len(values) == 1 else values
            yield Check(f"where.{one.name}", one.wanted, found, one.holds(event))
        outputs = event[MEDIA]
        for one in self.of_outputs:
            values = [value for output in outputs for value in one.values(output)]
            holds = any(map(one.holds, outputs))
            yield Check(f"where.{one.name}", one.wanted, values, holds)
        if len(self.of_outputs) > 1:
            together = "one output meets all conditions for outputs"
            yield Check("where.media", together, len(outputs), self._has_output(event))

    def as_json(self) -> dict[str, Any]:
        """Return the condition of each field, by its name."""
        return {one.name: plain_value(one.wanted) for one in self.conditions}

    def __str__(self) -> str:
        return ", ".join(map(str, self.conditions))

    def _has_output(self, event: Mapping[str, Any]) -> bool:
        return any(all(one.holds(output) for one in self.of_outputs) for output in event[MEDIA])


def parse(table: Any, providers: Collection[str] = ()) -> Filter | None:
    """Return the filter that a `where` table describes; None for an empty table.

    `providers`, if given, are the only names that `task.provider` can have. Raises InvalidFilter
    with a problem for each field that is wrong.
    """
    if not isinstance(table, Mapping):
        example = 'where = { "task.account" = "shop-*" }'
        raise InvalidFilter({"": f"is not a table; write one such as {example}"})
    problems: dict[str, str] = {}
    of_event: dict[str, FieldCondition] = {}
    of_outputs: dict[str, FieldCondition] = {}
    for path, wanted in _fields(table):
        name = ".".join(path)
        conditions = of_outputs if path[0] == MEDIA else of_event
        if name in conditions:
            problems[name] = "is used twice; use a list, or one table with min and max"
            continue
        try:
            conditions[name] = _condition(path, wanted, providers)
        except InvalidCondition as error:
            problems[one_line(name[:LONGEST_SHOWN])] = str(error)
    number = len(of_event) + len(of_outputs)
    if number > MOST_CONDITIONS:
        problems[""] = f"has {number} conditions; use at most {MOST_CONDITIONS}"
    if problems:
        raise InvalidFilter(problems)
    return Filter(tuple(of_event.values()), tuple(of_outputs.values())) if number else None


def _fields(table: Mapping[str, Any], parent: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path of each field and its condition. Names with dots and tables are equivalent."""
    for key, value in table.items():
        path = (*parent, *key.split("."))
        is_table = path in _TABLES or (path[:2] == METADATA and not is_condition(value))
        if isinstance(value, Mapping) and is_table and len(path) <= MOST_PARTS:
            yield from _fields(value, path)
        else:
            yield path, value


def _condition(path: Path, wanted: Any, providers: Collection[str]) -> FieldCondition:
    name = ".".join(path)
    kind, choices = _field(path)
    condition = compiled(wanted, kind, tuple(sorted(providers)) if name == PROVIDER else choices)
    keys = path[1:] if path[0] == MEDIA else path
    rests = (".".join(keys[place:]) for place in range(len(keys)))
    return FieldCondition(name, wanted, tuple(zip(keys, rests, strict=True)), condition)


def _field(path: Path) -> _Field:
    """Return the kind of a field. Raises InvalidCondition for a field that no filter can use."""
    name = ".".join(path)
    if name in FIELDS:
        return FIELDS[name]
    if name in UNUSABLE:
        raise InvalidCondition(UNUSABLE[name])
    if path == METADATA:
        raise InvalidCondition("is an object; name one of its keys, as in task.metadata.campaign")
    if path in _TABLES:
        raise InvalidCondition(f"is a table; name one of its fields: {_fields_below(path[0])}")
    if len(path) > MOST_PARTS:
        raise InvalidCondition(f"has more than {MOST_PARTS} parts")
    if path[:2] == METADATA:
        if not all(path):
            raise InvalidCondition("has an empty part; write a name after each dot")
        return _Field(Kind.ANY)
    raise InvalidCondition(f"is not a field of an event; {_suggestion(path)}")


def _suggestion(path: Path) -> str:
    """Return a field with a similar name, or else the fields of the same table."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for this error

    similar = get_close_matches(".".join(path)[:LONGEST_SHOWN], FIELDS, 1, 0.8)
    if not similar:  # such as `account` for `task.account`
        similar = [name for name in FIELDS if name.endswith(f".{path[-1]}")][:1]
    table = path[0] if (path[0],) in _TABLES else ""
    return f"did you mean {similar[0]}?" if similar else f"use {_fields_below(table)}"


def _fields_below(table: str) -> str:
    names = [name for name in FIELDS if not table or name.startswith(f"{table}.")]
    return ", ".join([*names, "task.metadata.…"] if table != MEDIA else names)


def _elements(values: Sequence[Any]) -> Iterator[Any]:
    """Yield the values, and in place of each list its elements. Depth needs no stack."""
    waiting = list(values)[::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(reversed(value))
        else:
            yield value
