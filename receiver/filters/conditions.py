"""Compiles the conditions of a filter: patterns, numbers, times, ranges, lists and `not`; pure.

A condition is compiled once, when the hooks file is loaded. The time to test a value is bounded: a
pattern has at most LONGEST_PATTERN characters, and is compared with at most LONGEST_TEXT
characters of the value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from receiver.text.display import one_line, rfc3339

LONGEST_PATTERN = 200  # characters
LONGEST_TEXT = 4_096  # characters of a value that are compared with a pattern
LONGEST_LIST = 1_000  # values
LARGEST = 10**40  # absolute value of an integer
MOST_OTHERS = 100  # values of a list that are not plain strings, such as patterns
LONGEST_SHOWN = 80  # characters of a value in an error
DEEPEST = 8  # nested levels of lists and `not`
SPECIAL = "*?["  # the characters that make a string a pattern
RANGE = ("min", "max", "not")  # a table with one of these keys is a condition
_DECIMAL = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?")
_LONGEST_INSTANT = 40  # characters

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
Condition = Callable[[Any], bool]  # returns whether a value of the event matches
Number = int | Decimal


class InvalidCondition(ValueError):
    """A condition that is not valid. The message states the problem and the remedy."""


class Kind(Enum):
    """The type of a field: a string, a number in a string, a time in ms UTC, a boolean, or JSON.

    The value of a member is the error message for a condition that does not fit the type.
    """

    TEXT = 'is text; use a pattern such as "shop-*", a list of patterns, or { not = "shop-*" }'
    NUMBER = "is a number; use 1, a list such as [1, 2], { min = 1, max = 5 }, or { not = 1 }"
    TIME = "is a time; use a date, or { min = 2026-11-01, max = 2026-11-30T12:00:00Z }"
    BOOLEAN = "is true or false; use one of them, without quotes"
    ANY = "use a pattern in quotes, a number, true, false, a time, a list, a range or { not = … }"


def compiled(
    value: Any, kind: Kind = Kind.ANY, choices: Collection[str] = (), depth: int = 0
) -> Condition:
    """Compile the condition that a value in the hooks file describes. Raises InvalidCondition.

    `choices`, if given, are the only values that the field can have.
    """
    if depth > DEEPEST:
        raise InvalidCondition(f"is nested more than {DEEPEST} levels deep")
    if isinstance(value, str) and kind is not Kind.BOOLEAN:
        matches = _pattern(value, choices)
        return matches if kind is not Kind.TIME else lambda actual: matches(time_text(actual))
    if isinstance(value, bool):
        if kind in (Kind.BOOLEAN, Kind.ANY):
            return lambda actual: actual is value
    elif isinstance(value, int | float) and kind in (Kind.NUMBER, Kind.ANY):
        return _equal(_finite(value))
    elif isinstance(value, date) and kind in (Kind.TIME, Kind.ANY):  # includes datetime
        return _between(_reader(kind), _start(value), _end(value))
    elif isinstance(value, list):
        return _any_of(value, kind, choices, depth)
    elif isinstance(value, Mapping):
        return _all_of(value, kind, choices, depth)
    raise InvalidCondition(kind.value)


def is_condition(value: Any) -> bool:
    """Return whether a value in `task.metadata` is a condition, as opposed to a table of fields."""
    return not isinstance(value, Mapping) or not value or any(key in value for key in RANGE)


def written(value: Any) -> str:
    """Return a value in TOML syntax, on one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {written(one)}' for key, one in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, date):
        return value.isoformat().replace("+00:00", "Z")
    return json.dumps(value, ensure_ascii=False)


def plain_value(value: Any) -> Any:
    """Return a value from the hooks file as JSON data, in which times are strings."""
    if isinstance(value, Mapping):
        return {key: plain_value(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain_value(one) for one in value]
    return written(value) if isinstance(value, date) else value


def number(value: Any) -> Number | None:
    """Return a value, or a number written in a string, as a number; None for anything else."""
    if isinstance(value, str):
        return Decimal(value) if _DECIMAL.fullmatch(value) else None
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else None  # 0.1 equals "0.1"
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def instant(value: Any) -> float | None:
    """Return a time in ms UTC; None for any other value. A time without an offset is in UTC."""
    if not isinstance(value, str) or not 10 <= len(value) <= _LONGEST_INSTANT:
        return None
    try:
        return _start(datetime.fromisoformat(value))
    except ValueError:
        return None


def time_text(value: Any) -> str | None:
    """Format a time in ms UTC as in events."""
    return None if value is None else rfc3339(value)


def _pattern(pattern: str, choices: Collection[str]) -> Condition:
    shown = one_line(pattern[:LONGEST_SHOWN])
    if not pattern:
        raise InvalidCondition('is empty; for a field without a value, use { not = "*" }')
    if len(pattern) > LONGEST_PATTERN:
        raise InvalidCondition(
            f'"{shown}…" has {len(pattern):,} characters; use at most {LONGEST_PATTERN}'
        )
    if "${" in pattern:
        raise InvalidCondition(f'"{shown}" contains a variable, which filters do not replace')
    if choices and not any(fnmatchcase(choice, pattern) for choice in choices):
        raise InvalidCondition(f'"{shown}" matches none of {", ".join(choices)}')
    if pattern == "*":
        return lambda actual: actual is not None
    if not set(pattern) & set(SPECIAL):
        return lambda actual: isinstance(actual, str) and actual == pattern
    return lambda actual: isinstance(actual, str) and fnmatchcase(actual[:LONGEST_TEXT], pattern)


def _equal(wanted: Number) -> Condition:
    return lambda actual: number(actual) == wanted


def _between(read: Callable[[Any], Any], least: Any, most: Any) -> Condition:
    """Return a condition for a range that includes both limits; None means no limit."""

    def condition(actual: Any) -> bool:
        value = read(actual)
        return (
            value is not None
            and (least is None or value >= least)
            and (most is None or value <= most)
        )

    return condition


def _any_of(values: Sequence[Any], kind: Kind, choices: Collection[str], depth: int) -> Condition:
    if not values:
        raise InvalidCondition("is an empty list, which no event can match")
    if len(values) > LONGEST_LIST:
        raise InvalidCondition(f"has {len(values):,} values; use at most {LONGEST_LIST:,}")
    conditions = [compiled(value, kind, choices, depth + 1) for value in values]
    texts = {one for one in values if isinstance(one, str) and not set(one) & set(SPECIAL)}
    if kind is Kind.TIME:  # the values of such a field are numbers
        texts.clear()
    others = [
        condition
        for value, condition in zip(values, conditions, strict=True)
        if not isinstance(value, str) or value not in texts
    ]
    if len(others) > MOST_OTHERS:
        raise InvalidCondition(
            f"has {len(others)} values that are not plain strings; use at most {MOST_OTHERS}"
        )

    def condition(actual: Any) -> bool:
        if isinstance(actual, str) and actual in texts:
            return True
        return any(one(actual) for one in others)

    return condition


def _all_of(
    table: Mapping[str, Any], kind: Kind, choices: Collection[str], depth: int
) -> Condition:
    if not table:
        raise InvalidCondition("is an empty table; use min, max or not")
    unknown = next((key for key in table if key not in RANGE), None)
    if unknown is not None:
        shown = one_line(unknown[:LONGEST_SHOWN])
        raise InvalidCondition(f'"{shown}" is not a condition; use min, max or not')
    conditions = list(_limits(table, kind))
    if "not" in table:
        unwanted = compiled(table["not"], kind, choices, depth + 1)
        conditions.append(lambda actual: not unwanted(actual))
    return lambda actual: all(one(actual) for one in conditions)


def _limits(table: Mapping[str, Any], kind: Kind) -> Iterator[Condition]:
    limits = {key: _limit(key, table[key]) for key in ("min", "max") if key in table}
    if not limits:
        return
    kinds = {of for of, _ in limits.values()}
    if len(kinds) > 1:
        raise InvalidCondition("min and max are a number and a time; use two numbers or two times")
    if kind is not Kind.ANY and kind not in kinds:
        raise InvalidCondition(kind.value)
    least, most = (limits[key][1] if key in limits else None for key in ("min", "max"))
    if least is not None and most is not None and least > most:
        raise InvalidCondition("min is greater than max, so no event can match")
    yield _between(_reader(kind) if Kind.TIME in kinds else number, least, most)


def _limit(key: str, value: Any) -> tuple[Kind, Number | float]:
    """Return the kind and the value of a limit; times are in ms UTC. Raises InvalidCondition.

    A date is the beginning of the day for `min`, and its end for `max`.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Kind.NUMBER, _finite(value)
    if isinstance(value, date):
        return Kind.TIME, _start(value) if key == "min" else _end(value)
    with suppress(TypeError, ValueError):
        return _limit(key, date.fromisoformat(value))
    moment = instant(value)
    if moment is None:
        raise InvalidCondition(
            f"{key} is neither a number nor a time such as 2026-11-01 or 2026-11-01T08:00:00Z"
        )
    return Kind.TIME, moment


def _reader(kind: Kind) -> Callable[[Any], Any]:
    """Return the function that reads a time from the value of a field of this kind."""
    return instant if kind is Kind.ANY else lambda actual: actual


def _finite(value: float) -> Number:
    if isinstance(value, int) and abs(value) > LARGEST:  # too long to be shown
        raise InvalidCondition("is an integer of more than 40 digits")
    finite = number(value)
    if finite is None:
        raise InvalidCondition(f"{value} is not a finite number")
    return finite


def _start(value: date) -> float:
    """Return a time, or the beginning of a day, in ms UTC."""
    moment = value if isinstance(value, datetime) else datetime.combine(value, time.min)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) / MILLISECOND


def _end(value: date) -> float:
    return _start(value if isinstance(value, datetime) else datetime.combine(value, time.max))
