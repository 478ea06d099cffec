"""Which objects of a python or command hook are stored for the hooks that wait for it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from receiver.hooks import returned_json
from receiver.hooks.returned_json import MAX_OBJECT, MAX_PRINTED


def _nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels):
        document = {"a": document}
    return document


LARGEST = {"a": "x" * (MAX_OBJECT - len('{"a":""}'))}
NOT_STORED = {
    "too long": ({"a": LARGEST["a"] + "x"}, f"{MAX_OBJECT:,} bytes"),
    "a date": ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, "datetime"),
    "NaN": ({"a": float("nan")}, "JSON"),
    "half of a pair": ({"a": "\ud800"}, "surrogate"),
    "NUL": ({"a": "\0"}, "NUL"),
    "bytes as a key": ({b"a": 1}, "keys must be"),
}


@pytest.mark.parametrize("returned", [{"a": [1, None, {"é": 0.5}]}, LARGEST, {"a": "é" * 9}, {}])
def test_an_object_is_stored(returned: dict[str, Any]) -> None:
    for done in (
        returned_json.done("fine", returned),
        returned_json.printed("fine", json.dumps(returned, indent=2).encode()),
    ):
        assert (done.answer, done.output) == ("fine", returned)


@pytest.mark.parametrize(("returned", "problem"), NOT_STORED.values(), ids=NOT_STORED)
def test_the_answer_states_why_an_object_is_not_stored(
    returned: dict[Any, Any], problem: str
) -> None:
    done = returned_json.done("fine", returned)
    assert done.output == {}
    assert done.answer.startswith("fine (the object that it returned is not stored: ")
    assert problem in done.answer


@pytest.mark.parametrize("levels", [100, 100_000])
def test_an_object_that_is_nested_deeply_is_not_stored(levels: int) -> None:
    done = returned_json.done("fine", _nested(levels))
    assert done.output == {}
    assert "nested" in done.answer


@pytest.mark.parametrize(
    "text", [b"", b"ready\n", b"[1, 2]", b"\xff\xfe", b'"text"', b"x" * 99_999]
)
def test_other_text_is_not_an_object_and_is_accepted(text: bytes) -> None:
    done = returned_json.printed("fine", text)
    assert (done.answer, done.output) == ("fine", {})


@pytest.mark.parametrize("text", [b"{", b'{"a": 1} {"a": 2}', b'{"a": 1, "a": 2}', b"{\xff}"])
def test_text_that_begins_like_an_object_is_reported(text: bytes) -> None:
    done = returned_json.printed("fine", text)
    assert done.output == {}
    assert "is not stored" in done.answer


def test_an_object_with_many_spaces_is_not_read_without_a_limit() -> None:
    done = returned_json.printed("fine", b'{"a": 1' + b" " * MAX_PRINTED + b"}")
    assert done.output == {}
    assert "more than" in done.answer
