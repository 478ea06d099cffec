"""Gives file space back: free pages to the file system, and the log to the file."""

from __future__ import annotations

from pathlib import Path

from receiver.stores.sqlite.files import check_complete, file_lock
from receiver.stores.sqlite.writer import connect


def give_back(path: Path, pages: int) -> int:
    """Return up to `pages` free pages, and write the log back; how many free pages are left.

    Every writer waits meanwhile, so `pages` should be small: 1,000 took 20 milliseconds. A
    reader that holds on to the log does not hold us up: the log then shrinks another time.
    Raises sqlite3.Error, OSError.
    """
    with file_lock(path):
        check_complete(path)
        connection = connect(path, read_only=False)
        try:
            connection.execute("pragma busy_timeout = 50")
            if pages:
                # Each step frees one page, and `execute` does one step: there are no rows to fetch.
                connection.executescript(f"pragma incremental_vacuum({int(pages)})")
            connection.execute("pragma wal_checkpoint(truncate)").fetchall()
            return int(connection.execute("pragma freelist_count").fetchone()[0])
        finally:
            connection.close()
