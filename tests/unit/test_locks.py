"""Locks are values, and no code depends on a comment in SQL."""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.stores import releases
from receiver.stores.sql.locks import Lock, locked
from receiver.stores.sqlite.session import SqliteSession
from tests.support.installation import ROOT
from tests.support.syntax_trees import docstrings, nodes_in

STORES = ROOT / "receiver" / "stores"
COMMENT = re.compile(r"/\*|\*/|--")


@pytest.mark.parametrize(
    ("lock", "clause"),
    [
        (Lock.ROWS, "for update"),
        (Lock.TASKS, "for update of tasks"),
        (Lock.SKIP_LOCKED, "for update skip locked"),
    ],
)
def test_a_lock_is_appended_to_the_statement(lock: Lock, clause: str) -> None:
    found = locked("where id = ?\n", lock)
    assert found.with_lock == f"where id = ? {clause}"
    assert found.without_lock == "where id = ? "


def test_a_lock_is_inserted_at_its_placeholder() -> None:
    found = locked("update a set b = 1 where c in (select c from a {lock})", Lock.SKIP_LOCKED)
    assert found.with_lock == (
        "update a set b = 1 where c in (select c from a for update skip locked)"
    )
    assert found.without_lock == "update a set b = 1 where c in (select c from a )"


@pytest.mark.parametrize("unknown", ["tasks", "TASKS", "for update", None])
def test_an_unknown_lock_raises(unknown: Any) -> None:
    with pytest.raises(TypeError, match="is not a lock"):
        locked("select 1", unknown)


def test_a_misspelt_lock_raises() -> None:
    with pytest.raises(AttributeError):
        Lock.TAKS  # type: ignore[attr-defined]  # noqa: B018


def test_two_placeholders_for_a_lock_raise() -> None:
    with pytest.raises(ValueError, match="more than once"):
        locked("select {lock} {lock}", Lock.ROWS)


def test_a_locked_statement_cannot_be_executed_without_its_lock_by_accident() -> None:
    statement: Any = locked("select 1", Lock.ROWS)
    connection = sqlite3.connect(":memory:", factory=SqliteSession)
    try:
        with pytest.raises(TypeError):
            connection.execute(statement)
        assert connection.execute_locked(statement).fetchone() == (1,)
    finally:
        connection.close()


def test_no_sql_of_the_stores_contains_a_comment() -> None:
    """It also contains no delimiter for which code could search."""
    assert [
        f"{path.relative_to(ROOT)}: {text}"
        for path in STORES.rglob("*.py")
        for text in _strings(path)
        if COMMENT.search(text)
    ] == []


@pytest.mark.parametrize("package", ["receiver", "submitter"])
def test_no_string_elsewhere_begins_a_comment_of_sql(package: str) -> None:
    assert [
        f"{path.relative_to(ROOT)}: {text}"
        for path in (ROOT / package).rglob("*.py")
        for text in _strings(path)
        if "/*" in text
    ] == []


def test_the_search_covers_parts_of_strings(tmp_path: Path) -> None:
    """Otherwise the previous test could pass because the search finds nothing."""
    module = tmp_path / "module.py"
    module.write_text('"""A docstring: select /* this */."""\nA = f"select {1} from b /* x */"\n')
    found = list(_strings(module))
    assert found == ["select ", " from b /* x */"]
    assert any(COMMENT.search(text) for text in found)


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_comments_of_migrations_are_whole_lines(store: str) -> None:
    """The databases skip them; none is on the same line as SQL."""
    for name, sql in releases.migrations(store):
        assert "/*" not in sql, name
        for line in sql.splitlines():
            assert "--" not in line.lstrip().removeprefix("--"), f"{name}: {line}"
            assert "--" not in line or line.lstrip().startswith("--"), f"{name}: {line}"


def _strings(path: Path) -> Iterator[str]:
    """Return every string of a module and every constant part of one, except docstrings."""
    nodes = nodes_in(path)
    left_out = docstrings(nodes)
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in left_out:
            yield node.value
