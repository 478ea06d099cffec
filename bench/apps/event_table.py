"""Handles a callback as every Python peer does: check the token, parse, insert, commit.

Uses only the standard library, because the peers have their own environments.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import threading
import time

DATABASE = os.environ["BENCH_DATABASE"]
SYNCHRONOUS = os.environ.get("BENCH_SYNCHRONOUS", "FULL")
SECRET = os.environ["CALLBACK_SECRETS"].encode()
CREATE = """
create table if not exists events (
  id integer primary key, task text not null, status text not null, received_at integer not null,
  body blob not null, unique (task, status)
)
"""
INSERT = "insert or ignore into events (task, status, received_at, body) values (?, ?, ?, ?)"
_connections = threading.local()


def is_ours(provider: str, task: str, token: str) -> bool:
    digest = hmac.digest(SECRET, f"callback-url:v1:{provider}:{task}".encode(), hashlib.sha256)
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return hmac.compare_digest(expected, token)


def keep(task: str, body: bytes) -> str:
    """Commit each request separately."""
    status = json.loads(body)["task_status"]
    with _connection() as connection:
        made = connection.execute(INSERT, (task, status, int(time.time() * 1000), body))
    return "recorded" if made.rowcount else "duplicate"


def _connection() -> sqlite3.Connection:
    """This thread's."""
    known: sqlite3.Connection | None = getattr(_connections, "known", None)
    if known is None:
        known = _connections.known = sqlite3.connect(DATABASE, timeout=30)
        known.execute("pragma journal_mode = wal")
        known.execute(f"pragma synchronous = {SYNCHRONOUS}")
        known.execute(CREATE)
    return known
