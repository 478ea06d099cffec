"""Counts the rows that a server under test has stored."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg


def rows(database: Path, table: str) -> int:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])  # noqa: S608
    finally:
        connection.close()


def postgres_rows(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"select count(*) from {table}".encode()).fetchone()  # noqa: S608
    assert row is not None
    return int(row[0])
