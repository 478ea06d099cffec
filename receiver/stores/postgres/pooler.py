"""Detects a pooler that changes servers between transactions, such as PgBouncer.

In this mode, the next transaction may lack a prepared statement, or get that of another client, and
notifications do not arrive.
"""

from __future__ import annotations

from typing import Any

import psycopg

from receiver.stores.postgres.connecting import connect

ROUNDS = 10
REPORT = (
    "DATABASE_URL connects through a pooler in transaction mode, such as PgBouncer, which loses"
    " prepared statements and notifications between transactions: statements are not prepared, and"
    " workers look for deliveries once a second"
)
REMEDY = (
    "for full speed, point DATABASE_URL at PostgreSQL itself, or at a pool in session mode"
    " (docs/scaling.md)"
)


def changes_servers(connection: psycopg.Connection[Any], url: str) -> bool:
    """Return whether transactions of one connection reach different servers, or share them.

    A pooler sends its client a process id of its own instead of the server's. In session mode, each
    connection keeps its server. In transaction mode, a server that one connection has just used
    serves the next one.
    """
    if _server(connection) == connection.info.backend_pid:
        return False
    with connect(url) as other:
        ours, others = set(), set()
        for _ in range(ROUNDS):
            ours.add(_server(connection))
            others.add(_server(other))
    return bool(ours & others) or len(ours) > 1 or len(others) > 1


def _server(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("select pg_backend_pid()").fetchone()
    assert row is not None  # noqa: S101 - it has one row
    pid: int = row[0]
    return pid
