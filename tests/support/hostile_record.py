"""A full record in which every text and timestamp is replaced by one that is hard to display."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

HTML = "<script>alert(1)</script>'\"&amp;{{7*7}}%s"
TERMINAL = "\x1b[2J\x1b]0;title\x07\x9b31m\x85\x7f\b\r\n\t\x01"
DIRECTION = "\u202e\u2066\u061c\u200f\u2028\u2029\ufeff\u200b"
NO_CHARACTERS = "\ufffe\uffff\U0010ffff\U0001fffe\ue000"
LETTERS = "é\u0301\u0301\u0301\U0001f9e5\u05d0\u0e33"
TEXT = HTML + TERMINAL + DIRECTION + NO_CHARACTERS + LETTERS
# Bytes for SQLite, which stores any as text: a truncated character, an overlong form, and NUL.
NO_TEXT = b"\xed\xa0\x80\xff\xfe\xc0\xaf\x00\xf4\x90\x80\x80" + TEXT.encode()
TEXTS = {
    "every kind of character": NO_TEXT,
    "nothing": b"",
    "spaces": b" \n\t ",
    "a halved pair in JSON": b'{"a": "\\ud800", "X-\\udfff": "\\u0000\\ud83d"}',
    "JSON of another kind": b'["\\ud800", 1e400, NaN, [[]], null]',
    "an object": json.dumps({TEXT: [TEXT, 1e308, -0.0], "a": {"b": TEXT}}).encode(),
    "a very long text": b"<" + "ä\u202e".encode() * 3_000,
}
MOMENTS = {
    "far in the future": 2**63 - 1,
    "long ago": -(2**62),
    "before 1970": -1,
    "1970": 0,
    "year 9999": 253_402_300_799_999,
    "year 10000": 253_402_300_800_000,
    "year 1": -62_135_596_800_000,
    "year 0": -62_135_596_800_001,
    "microseconds": 1_765_519_851_000_000,
    "seconds": 1_765_519_851,
    "the clocks go forward": 1_774_746_000_000,
    "the clocks go back": 1_792_890_000_000,
    "the last of an hour": 1_765_522_799_999,
    "a leap day": 951_782_400_000,
}
BODIES = {
    "not JSON": b"\xff\xfe\x00\xed\xa0\x80" + TEXT.encode(),
    "half a character": b'{"task_id": "\\ud800", "task_status": "\\udfff", "\\ud800": ["\\udead"]}',
    "numbers": b'{"task_status": 1e400, "a": NaN, "b": -Infinity, "c": ' + b"9" * 9_000 + b"}",
    "deep": b"[" * 9_000 + b"]" * 9_000,
    "a repeated key": b'{"a": "\\ud800", "a": 1}',
    "escapes": b'{"a": "\\u001b[2J\\u0000\\u202e\\ufffe\\u009b"}',
    "compressed": gzip.compress(b"\xff\xed\xa0\x80"),
    "UTF-16": '{"a": "\u202e"}'.encode("utf-16"),
    "nothing": b"",
}
# Columns whose values the product chooses, and which refer to rows of other tables.
OURS = {
    *(("tasks", column) for column in ("id", "provider")),
    ("callbacks", "provider"),
    ("idempotency_keys", "task"),
    *((table, "provider") for table in ("counters", "task_counts", "hours")),
    ("hours", "series"),
    ("counters", "name"),
    ("measures", "name"),
    ("processes", "kind"),
    ("trials", "status"),
    ("delivery_counts", "state"),
    ("task_counts", "status"),
    ("alerts", "kind"),
}
AT = ("_at", "until", "at", "hour")


def poisoned(path: Path, turn: int = 0) -> set[str]:
    """Put a hostile text into every text column of an SQLite record; return the columns.

    Each column gets the next of TEXTS, beginning with the one for this turn.
    """
    return _changed(
        path, "text", list(TEXTS.values()), turn, lambda table, column: (table, column) not in OURS
    )


def moved(path: Path, turn: int = 0) -> set[str]:
    """Put one of MOMENTS into every time column of an SQLite record; return the columns."""
    return _changed(
        path, "integer", list(MOMENTS.values()), turn, lambda _, column: column.endswith(AT)
    )


def replaced_bodies(path: Path, turn: int = 0) -> None:
    """Replace every message of an SQLite record with one of BODIES."""
    _changed(path, "blob", list(BODIES.values()), turn, lambda _, column: column == "body")


def _changed(
    path: Path, kind: str, values: list[Any], turn: int, is_meant: Callable[[str, str], bool]
) -> set[str]:
    following = cycle([*values[turn:], *values[:turn]])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_function("hostile", -1, lambda *_: next(following))
        return {
            f"{table}.{column}"
            for table, column, of_kind in list(_columns(connection))
            if of_kind == kind and is_meant(table, column)
            if _put(connection, table, column, kind)
        }


def _columns(connection: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    tables = connection.execute(
        "select name from sqlite_schema where type = 'table' and name not like '%sqlite%'"
    ).fetchall()
    for (table,) in tables:
        for _, column, kind, *_ in connection.execute(f"pragma table_info({table})").fetchall():
            yield table, column, str(kind).lower()


def _put(connection: sqlite3.Connection, table: str, column: str, kind: str) -> bool:
    """Return False if the column accepts only certain values."""
    value = f"cast(hostile({column}) as {kind})"
    try:
        connection.execute(f"update {table} set {column} = {value}")  # noqa: S608
    except sqlite3.IntegrityError as error:
        if "UNIQUE" not in str(error):
            return False
        own = f"cast(hostile({column}) || {column} as text)"  # each row needs a different one
        connection.execute(f"update {table} set {column} = {own}")  # noqa: S608
    return True


def poisoned_postgres(url: str, instant: int) -> set[str]:
    """Put the text and the time into every suitable column of a PostgreSQL record; return them."""
    found = set[str]()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")  # triggers are off
        columns = connection.execute(
            "select table_name, column_name, data_type from information_schema.columns "
            "where table_schema = 'public' and table_name not like 'procrastinate%' "
            "and table_name <> 'callback_receiver_migrations'"
        ).fetchall()
        for table, column, kind in columns:
            is_text = kind == "text" and (table, column) not in OURS
            is_time = kind == "bigint" and column.endswith(AT)
            if not is_text and not is_time:
                continue
            value = TEXT if is_text else instant
            update = SQL("update {} set {} = %s").format(Identifier(table), Identifier(column))
            try:
                connection.execute(update, (value,))
            except psycopg.IntegrityError:
                continue  # it accepts only certain values, or needs a different value for each row
            found.add(f"{table}.{column}")
    return found
