"""Records in which no field has its default value, for tests that write and read all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from itertools import count
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
NOW = 1_765_519_851_000


def filled(cls: type[T], **given: object) -> T:
    """Return an instance of a dataclass whose values all differ from their defaults.

    The values are made from the types of the fields, so a new field needs no change here. `given`
    contains values that a test chooses; they must not be the defaults either.
    """
    hints, numbers = get_type_hints(cls), count(2)
    values: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]  # a dataclass
        if field.name in given:
            value = given[field.name]
        else:
            value = _value(hints[field.name], field.name, next(numbers), field.default)
        default = MISSING if field.default_factory is MISSING else field.default_factory()
        assert value not in (None, field.default, default), f"{field.name} has its default value"
        values[field.name] = value
    return cls(**values)


def _value(kind: Any, name: str, number: int, default: object) -> object:
    if get_origin(kind) is UnionType:
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is Mapping:
        return {name: [number, "é"]}
    if issubclass(kind, Enum):
        return next(one for one in reversed(kind) if one is not default)
    if kind is bool:
        return not default
    if kind is int:
        return NOW + number if name.endswith("_at") or name == "at" else number
    if kind is bytes:
        return f"\x00{name} {number}\xff".encode("latin-1")
    if kind is float:
        return number / 2
    assert kind is str, f"no value for {name}, a field of the type {kind}"
    return f"{name} é {number}"
