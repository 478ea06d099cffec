"""The web process of `wsgi.py`, which gives up quickly while a test breaks its database.

While the file `impatient` exists beside the database, a commit that cannot be made fails after a
moment. At all other times, it may take as long as a very busy machine needs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from receiver.config.settings import load, sqlite_path
from receiver.stores import group_commit
from receiver.stores.sqlite import writer
from receiver.stores.sqlite.session import SqliteSession
from tests.support.apps.unlimited_arrival import UNLIMITED, app

__all__ = ["app"]

SHORT = 0.5  # seconds
impatient = sqlite_path(load().database_url).with_name("impatient")
submit, connect = group_commit.GroupCommit.submit, writer.connect


def submit_while(
    self: Any, work: Callable[[Any], Any], about: str = "", *, start: bool = True
) -> group_commit.Write[Any, Any]:
    """Choose the timeout of a write when it is submitted."""
    patience = SHORT if impatient.exists() else UNLIMITED
    group_commit.PATIENCE = group_commit.PATIENCE_WHEN_STUCK = patience
    return submit(self, work, about, start=start)


def connect_briefly(path: Path, *, read_only: bool) -> SqliteSession:
    """Connect with a short timeout for SQLite's locks; our programs wait for the file lock."""
    connection = connect(path, read_only=read_only)
    connection.execute(f"pragma busy_timeout = {round(SHORT * 1000)}")
    return connection


group_commit.GroupCommit.submit = submit_while  # type: ignore[method-assign]
writer.connect = connect_briefly
