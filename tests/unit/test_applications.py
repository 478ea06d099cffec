"""Applications of the tests share what werkzeug finds in the path of a route, and nothing else."""

from __future__ import annotations

import pytest
from flask import Flask
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter

from tests.support.lazy_routes import LazyRule


class Digits(BaseConverter):
    regex = "[0-9]+"

    def to_url(self, value: int) -> str:
        return f"{value:03}"


def made(converter: type[BaseConverter] | None = None) -> Flask:
    app = Flask("app")
    assert app.url_rule_class is LazyRule
    if converter:
        app.url_map.converters["default"] = converter
    app.add_url_rule("/parts/<one>/<two>", "parts", str)
    return app


def test_routes_of_two_applications_match_and_build_the_same_urls() -> None:
    for app in (made(), made()):
        adapter = app.url_map.bind("shop.example")
        assert adapter.match("/parts/a/b") == ("parts", {"one": "a", "two": "b"})
        assert adapter.build("parts", {"one": "a", "two": "b c"}) == "/parts/a/b%20c"


def test_a_route_with_another_converter_is_not_the_shared_one() -> None:
    shared, other = (app.url_map.bind("shop.example") for app in (made(), made(Digits)))
    assert shared.match("/parts/a/b")
    with pytest.raises(NotFound):
        other.match("/parts/a/b")
    assert shared.build("parts", {"one": 1, "two": 2}) == "/parts/1/2"
    assert other.build("parts", {"one": 1, "two": 2}) == "/parts/001/002"


def test_a_route_with_defaults_builds_urls_with_them() -> None:
    for value in ("a", "b"):
        app = Flask("app")
        app.add_url_rule("/parts/<one>", "parts", str, defaults={"two": value})
        adapter = app.url_map.bind("shop.example")
        assert adapter.build("parts", {"one": "x", "two": value}) == "/parts/x"
        assert adapter.build("parts", {"one": "x", "more": value}) == f"/parts/x?more={value}"


def test_a_change_of_a_route_does_not_reach_another_application() -> None:
    first, second = (next(made().url_map.iter_rules("parts")) for _ in range(2))
    first.arguments.clear()
    assert second.arguments == {"one", "two"}
