"""Parses and evaluates a hook's `where` table: conditions for the fields of an event; pure.

The fields are those of the event that a webhook receives, `Notice.as_json`. Media are the results
of the provider; outputs are the objects that other hooks returned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

from receiver.filters.conditions import (
    LONGEST_SHOWN,
    InvalidCondition,
    Kind,
    compiled,
    is_condition,
    plain_value,
    time_text,
    written,
)
from receiver.tasks import Status, Trust
from receiver.text.display import one_line

MOST_CONDITIONS = 100
MOST_PARTS = 16  # in the dotted name of a field
METADATA = ("task", "metadata")
MEDIA = "media"
OUTPUTS = "outputs"  # the objects that other hooks returned, by the name of the hook
PROVIDER = "task.provider"
TOGETHER = "where.media"  # the key of the check that one item of `media` meets all its conditions
_STATUSES = tuple(status.value for status in Status)


class _Field(NamedTuple):
    """A field of an event. `attribute` belongs to `Notice`, or for `media.…` to `Media`."""

    attribute: str
    kind: Kind = Kind.TEXT
    choices: tuple[str, ...] = ()  # the possible values; empty if there are others


FIELDS: Mapping[str, _Field] = {
    "id": _Field("id"),
    "type": _Field("type", choices=(*(f"task.{name}" for name in _STATUSES[1:]), "task.given_up")),
    "occurred_at": _Field("transition.occurred_at", Kind.TIME),
    "trust": _Field("trust", choices=tuple(trust.value for trust in Trust)),
    "corrected": _Field("transition.corrected", Kind.BOOLEAN),
    "task.id": _Field("task.id"),
    PROVIDER: _Field("task.provider"),
    "task.account": _Field("task.account"),
    "task.provider_task_id": _Field("task.id_at_provider"),
    "task.reference": _Field("task.reference"),
    "task.model": _Field("task.model"),
    "task.status": _Field("task.status.value", choices=_STATUSES),
    "task.reason": _Field("task.reason"),
    "task.cost": _Field("task.cost", Kind.NUMBER),
    "task.cost_unit": _Field("task.cost_unit"),
    "task.created_at": _Field("task.created_at", Kind.TIME),
    "task.given_up_at": _Field("task.given_up_at", Kind.TIME),
    "media.kind": _Field("kind"),
    "media.index": _Field("index"),
    "media.url": _Field("url"),
    "media.expires_at": _Field("expires_at", Kind.TIME),
}
_LATER = "is not known when the filter is evaluated, because files are downloaded later"
# The fields of an event that filters cannot use, and the reason.
UNUSABLE: Mapping[str, str] = {
    "media.file": _LATER,
    "media.sha256": _LATER,
    "media.size": _LATER,
    "test": "exists only in test events, to which filters do not apply",
}
_TABLES = frozenset({("task",), (MEDIA,), (OUTPUTS,), METADATA})
Path = tuple[str, ...]  # the parts of a dotted name


class InvalidFilter(ValueError):
    """A `where` table with mistakes. `problems` maps the name of each wrong field to a problem."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Check:
    """The result of evaluating one condition of a subscription for an event."""

    key: str  # in the hooks file, such as `where.task.account`
    condition: Any  # the value of that key
    value: Any  # the value of the field in the event
    holds: bool


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """The condition for one field."""

    name: str  # such as `task.account`
    condition: Any = field(hash=False)  # the value in the hooks file
    # Both functions take the notice, or for `media.…` one item of `media`.
    # `values` returns the values of the field.
    values: Callable[[Any], Sequence[Any]] = field(compare=False, repr=False)
    holds: Callable[[Any], bool] = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name} = {written(self.condition)}"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The conditions of a hook's `where` table, all of which an event has to meet.

    One item of the event's `media` has to meet all conditions in `of_media`. The outputs of other
    hooks are not known until after the delivery was written, so the conditions in `of_hook_outputs`
    are evaluated later. An event is a `Notice`, whose fields are read only if a condition needs
    them.
    """

    of_event: tuple[FieldCondition, ...]
    of_media: tuple[FieldCondition, ...]
    of_hook_outputs: tuple[FieldCondition, ...] = ()

    @property
    def conditions(self) -> tuple[FieldCondition, ...]:
        """All conditions, beginning with those for fields outside `media` and `outputs`."""
        return self.of_event + self.of_media + self.of_hook_outputs

    @property
    def hooks(self) -> set[str]:
        """The names of the hooks whose outputs it needs."""
        return {one.name.split(".")[1] for one in self.of_hook_outputs}

    def unmet(self, notice: Any) -> FieldCondition | None:
        """Return the first condition for an output that the event does not meet, or None."""
        return next((one for one in self.of_hook_outputs if not one.holds(notice)), None)

    def matches(self, notice: Any) -> bool:
        """Return whether the event meets all conditions, except for those for outputs."""
        for one in self.of_event:
            if not one.holds(notice):
                return False
        return not self.of_media or self._has_matching_item(notice)

    def checks(self, notice: Any) -> Iterator[Check]:
        """Yield whether the event meets each condition."""
        for one in self.of_event + self.of_hook_outputs:
            values = one.values(notice)
            value = values[0] if len(values) == 1 else values
            yield Check(f"where.{one.name}", one.condition, value, one.holds(notice))
        media = notice.media
        for one in self.of_media:
            values = [value for item in media for value in one.values(item)]
            yield Check(f"where.{one.name}", one.condition, values, any(map(one.holds, media)))
        if len(self.of_media) > 1:
            condition = "one item that meets all conditions for media"
            yield Check(TOGETHER, condition, len(media), self._has_matching_item(notice))

    def as_json(self) -> dict[str, Any]:
        """Return the condition of each field, by its name."""
        return {one.name: plain_value(one.condition) for one in self.conditions}

    def __str__(self) -> str:
        return ", ".join(map(str, self.conditions))

    def _has_matching_item(self, notice: Any) -> bool:
        return any(all(one.holds(item) for one in self.of_media) for item in notice.media)


def parse(table: Any, providers: Collection[str] = ()) -> EventFilter:
    """Parse a `where` table, which must not be empty.

    `providers`, if given, are the only values that `task.provider` can have. Raises InvalidFilter
    with a problem for each wrong field.
    """
    if not isinstance(table, Mapping):
        example = 'where = { "task.account" = "shop-*" }'
        raise InvalidFilter({"": f"is not a table; write one such as {example}"})
    if not table:
        raise InvalidFilter({"": "is empty; name a condition, or leave it out for every event"})
    fields = list(islice(_fields(table), MOST_CONDITIONS + 1))
    if len(fields) > MOST_CONDITIONS:
        raise InvalidFilter({"": f"has more than {MOST_CONDITIONS} conditions"})
    problems: dict[str, str] = {}
    of_event: dict[str, FieldCondition] = {}
    of_media: dict[str, FieldCondition] = {}
    of_hook_outputs: dict[str, FieldCondition] = {}
    for path, value in fields:
        name = ".".join(path)
        shown = one_line(name[:LONGEST_SHOWN])
        conditions = {MEDIA: of_media, OUTPUTS: of_hook_outputs}.get(path[0], of_event)
        if name in conditions:
            problems[shown] = "is used twice; use a list, or one table with min and max"
            continue
        try:
            conditions[name] = _condition(path, value, providers)
        except InvalidCondition as error:
            problems[shown] = str(error)
    if problems:
        raise InvalidFilter(problems)
    groups = (tuple(group.values()) for group in (of_event, of_media, of_hook_outputs))
    return EventFilter(*groups)


def _fields(table: Mapping[str, Any], parent: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the condition of each field. Dotted names and tables are equivalent."""
    for key, value in table.items():
        path = (*parent, *key.split("."))
        is_table = path in _TABLES or (_is_free(path) and not is_condition(value))
        if isinstance(value, Mapping) and is_table and value and len(path) <= MOST_PARTS:
            yield from _fields(value, path)
        else:
            yield path, value


def _condition(path: Path, value: Any, providers: Collection[str]) -> FieldCondition:
    name = ".".join(path)
    known = _field(path)
    if known is None:
        matches, read = compiled(value), _reader(path)
        return FieldCondition(name, value, read, lambda notice: any(map(matches, read(notice))))
    get, is_time = attrgetter(known.attribute), known.kind is Kind.TIME
    choices = tuple(sorted(providers)) if name == PROVIDER else known.choices
    matches = compiled(value, known.kind, choices)
    return FieldCondition(
        name,
        value,
        lambda subject: [time_text(get(subject)) if is_time else get(subject)],
        lambda subject: matches(get(subject)),
    )


def _keys(path: Path) -> list[list[str]]:
    """Return the keys that can begin at each part of the path: of one part, of two, and so on.

    Keys in the metadata can contain dots.
    """
    parts = range(len(path))
    return [[".".join(path[start : end + 1]) for end in parts[start:]] for start in parts]


def _is_free(path: Path) -> bool:
    """Return whether the field is in an object whose members are not fixed."""
    return path[:2] == METADATA or path[0] == OUTPUTS


def _reader(path: Path) -> Callable[[Any], list[Any]]:
    """Return a function that reads the values of a field in the metadata or in an output."""
    if path[0] == OUTPUTS:
        keys = _keys(path[1:])
        return lambda notice: _values(keys, notice.outputs)
    keys = _keys(path[2:])
    return lambda notice: _values(keys, notice.task.metadata)


def _values(keys: Sequence[Sequence[str]], document: Any) -> list[Any]:
    """Return the values at a path, or [None]; each list is replaced by its elements."""
    nodes: list[list[Any]] = [[document], *([] for _ in keys)]  # by the parts that lead to them
    for start, names in enumerate(keys):
        tables = [node for node in nodes[start] if isinstance(node, dict)]
        for end, name in enumerate(names, start + 1):
            nodes[end] += _elements([table[name] for table in tables if name in table])
    return nodes[-1] or [None]


def _field(path: Path) -> _Field | None:
    """Return the field, or None if it is in an object whose members are not fixed.

    Raises InvalidCondition for a field that filters cannot use.
    """
    name = ".".join(path)
    if name in FIELDS:
        return FIELDS[name]
    if name in UNUSABLE:
        raise InvalidCondition(UNUSABLE[name])
    if path == METADATA:
        raise InvalidCondition("is an object; name one of its keys, as in task.metadata.campaign")
    if path == (OUTPUTS,):
        raise InvalidCondition("is an object; name a hook and a key, as in outputs.cutout.score")
    if path in _TABLES:
        raise InvalidCondition(f"is a table; name one of its fields: {_fields_below(path[0])}")
    if len(path) > MOST_PARTS:
        raise InvalidCondition(f"has more than {MOST_PARTS} parts")
    if _is_free(path):
        if not all(path):
            raise InvalidCondition("has an empty part; write a name after each dot")
        return None
    raise InvalidCondition(f"is not a field of an event; {_suggestion(path)}")


def _suggestion(path: Path) -> str:
    """Return advice: a field with a similar name, or else the fields of the same table."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for this error

    similar = get_close_matches(".".join(path)[:LONGEST_SHOWN], FIELDS, 1, 0.8)
    if not similar:  # such as `account` for `task.account`
        similar = [name for name in FIELDS if name.endswith(f".{path[-1]}")][:1]
    if path[0] == METADATA[-1]:
        similar = [".".join((*METADATA, *(path[1:] or ("…",))))[:LONGEST_SHOWN]]
    table = path[0] if (path[0],) in _TABLES else ""
    if similar:
        return f"did you mean {similar[0]}?"
    note = "" if table else "; a key of the hook itself has to be above [hook.where]"
    return f"use {_fields_below(table)}{note}"


def _fields_below(table: str) -> str:
    names = [name for name in FIELDS if not table or name.startswith(f"{table}.")]
    return ", ".join([*names, "task.metadata.…"] if table != MEDIA else names)


def _elements(values: Sequence[Any]) -> Iterator[Any]:
    """Yield the values, with each list replaced by its elements. Does not use recursion."""
    waiting = list(values)[::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(reversed(value))
        else:
            yield value
