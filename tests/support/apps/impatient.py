"""The web process of `wsgi.py`, which waits a second for a commit that cannot be made."""

from __future__ import annotations

from pathlib import Path

from receiver.stores import group_commit
from receiver.stores.sqlite import writer
from receiver.stores.sqlite.session import SqliteSession

group_commit.PATIENCE = 1.0
connect = writer.connect


def impatient(path: Path, *, read_only: bool) -> SqliteSession:
    connection = connect(path, read_only=read_only)
    connection.execute("pragma busy_timeout = 500")
    return connection


writer.connect = impatient

from wsgi import app  # noqa: E402 - the waits have to be short first

__all__ = ["app"]
