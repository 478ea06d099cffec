"""What a route takes and answers, said where the route is; the OpenAPI document is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from marshmallow import Schema

View = TypeVar("View", bound=Callable[..., Any])
Kind = type[Schema] | str
"""A JSON document of this schema; or another media type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSpec:
    """One route. Its docstring says what it does."""

    answers: Mapping[int, Kind]
    refuses: tuple[int, ...] = ()  # with a problem document
    query: type[Schema] | None = None
    body: tuple[type[Schema], ...] = ()  # JSON of one of these
    headers: Mapping[str, str] = field(default_factory=dict)  # that may be sent: what each is for
    needs_record: bool = True  # or it would answer 503


_known: WeakKeyDictionary[Callable[..., Any], RouteSpec] = WeakKeyDictionary()


def described(description: RouteSpec) -> Callable[[View], View]:
    """Says what the decorated view takes and answers."""

    def remember(view: View) -> View:
        _known[view] = description
        return view

    return remember


def of(view: Callable[..., Any]) -> RouteSpec | None:
    """What was said of this view."""
    return _known.get(view)
