"""The web process of `wsgi.py`, with SQLite on a disk that can fail or lose power."""

from __future__ import annotations

from receiver.config.settings import load, sqlite_path
from tests.support.disk import Disk

disk = Disk(sqlite_path(load().database_url))
disk.install()

from wsgi import app  # noqa: E402 - the disk has to be there before the first connection

__all__ = ["app"]
