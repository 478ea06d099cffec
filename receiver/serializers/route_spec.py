"""Describes what a route accepts and returns, next to its view; used for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from marshmallow import Schema

View = TypeVar("View", bound=Callable[..., Any])
Kind = type[Schema] | str
"""The schema of a JSON document, or another media type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSpec:
    """The description of a route, besides the docstring of its view."""

    answers: Mapping[int, Kind]  # responses by status
    refuses: tuple[int, ...] = ()  # statuses of error responses
    query: type[Schema] | None = None
    body: tuple[type[Schema], ...] = ()  # the JSON body follows one of these schemas
    headers: Mapping[str, str] = field(default_factory=dict)  # optional headers and their meanings
    patterns: Mapping[str, str] = field(default_factory=dict)  # of optional headers, by name
    # Headers that are required if the URL has no token, each with its meaning and its pattern.
    signature: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    example: Mapping[str, Any] | str = ""  # the body, or the query, of the example with curl
    needs_record: bool = True  # the response may be a 503


_specs: WeakKeyDictionary[Callable[..., Any], RouteSpec] = WeakKeyDictionary()


def described(spec: RouteSpec) -> Callable[[View], View]:
    """Return a decorator that stores the description of a view."""

    def decorate(view: View) -> View:
        _specs[view] = spec
        return view

    return decorate


def of(view: Callable[..., Any]) -> RouteSpec | None:
    """Return the description of the view, if there is one."""
    return _specs.get(view)
