"""Makes Flask applications create their routes with little work: see `LazyRule`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from flask import Flask
from werkzeug.routing.rules import Rule, RulePart

BuildUrl = Callable[..., tuple[str, str]]  # of the rule and the values of its variables


class Parsed(NamedTuple):
    """What werkzeug finds in the path of a route."""

    parts: list[RulePart]
    trace: list[tuple[bool, str]]
    converters: dict[str, Any]


class LazyRule(Rule):
    """A route that is parsed once in this process. The function that builds its URLs is compiled
    once as well, when it is first called.

    An application has 40 routes, which hundreds of tests and of forked web processes create again,
    and most build the URLs of few of them. Otherwise, the routes would take most of the time in
    which an application is made.
    """

    _parsed: ClassVar[dict[str, Parsed]] = {}  # by the path with its variables
    # By the parsed path, the defaults, and whether other values become the query.
    _builders: ClassVar[dict[str, BuildUrl]] = {}

    def _parse_rule(self, rule: str) -> Iterable[RulePart]:
        assert self.map is not None
        if self.map.converters != self.map.default_converters:
            return super()._parse_rule(rule)
        if rule not in self._parsed:
            before = len(self._trace)
            parts = list(super()._parse_rule(rule))
            self._parsed[rule] = Parsed(parts, self._trace[before:], dict(self._converters))
            return parts
        parsed = self._parsed[rule]
        self._trace += parsed.trace
        self._converters |= parsed.converters
        self.arguments |= parsed.converters.keys()
        return parsed.parts

    def _compile_builder(self, append_unknown: bool = True) -> BuildUrl:
        compile_builder = super()._compile_builder
        compiled: list[BuildUrl] = []

        def build(*arguments: Any, **values: Any) -> tuple[str, str]:
            if not compiled:
                key = f"{self._trace} {self.defaults} {append_unknown}"
                if key not in self._builders:
                    self._builders[key] = compile_builder(append_unknown)
                compiled.append(self._builders[key])
            return compiled[0](*arguments, **values)

        return build


def install() -> None:
    """Use such routes in the applications of this process, and of the processes that it forks."""
    Flask.url_rule_class = LazyRule
