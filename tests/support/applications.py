"""Flask applications that run in the test process and are closed after use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, NamedTuple

from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from werkzeug.routing.rules import Rule, RulePart

from receiver.config.settings import Settings
from receiver.web import Routes, create_app


class Parsed(NamedTuple):
    """What werkzeug finds in the path of a route."""

    parts: list[RulePart]
    trace: list[tuple[bool, str]]
    converters: dict[str, Any]


class CompiledTemplates(BytecodeCache):
    """Keeps the compiled templates of this process: compiling them takes longer than most tests."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}  # by the name of the template and a hash of its source

    def load_bytecode(self, bucket: Bucket) -> None:
        if code := self._code.get(f"{bucket.key} {bucket.checksum}"):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[f"{bucket.key} {bucket.checksum}"] = bucket.bytecode_to_string()


class LazyRule(Rule):
    """A route that is parsed once in this process, and builds its URLs only when it has to.

    An application has 40 routes, which hundreds of tests create again, and most tests build the
    URLs of few of them. Otherwise, the routes would take most of the time in which an application
    is made.
    """

    _parsed: ClassVar[dict[str, Parsed]] = {}  # by the path with its variables

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

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compile_builder = super()._compile_builder
        compiled: list[Callable[..., tuple[str, str]]] = []

        def build(*arguments: Any, **values: Any) -> tuple[str, str]:
            if not compiled:
                compiled.append(compile_builder(append_unknown))
            return compiled[0](*arguments, **values)

        return build


Flask.url_rule_class = LazyRule
TEMPLATES = CompiledTemplates()
MakeApp = Callable[..., Flask]  # as `create_app` does


@contextmanager
def applications() -> Iterator[MakeApp]:
    """Return a function that makes applications; they are closed at the end of the block."""
    with ExitStack() as made:

        def make(settings: Settings | None = None, more: tuple[Routes, ...] = ()) -> Flask:
            app = create_app(settings, more)
            app.jinja_env.bytecode_cache = TEMPLATES
            made.callback(_close, app)
            return app

        yield make


def _close(app: Flask) -> None:
    """Close the connections and threads of an application, as its process does when it ends."""
    app.extensions["rejections"].close()
    app.extensions["live"].close()
    app.extensions["callbacks"].close()


def merge(app: Flask) -> None:
    """Add the attempts counted by this application to those of the other processes."""
    app.extensions["rejections"].merge()
