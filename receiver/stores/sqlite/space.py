"""Gives file space back: free pages to the file system, and the log to the file."""

from __future__ import annotations

from receiver.stores.sqlite.files import OpenFiles
from receiver.stores.sqlite.writer import connect

PIECE = 2**20  # bytes that are read at a time
SHORTEST_REMNANT = 6  # bytes


def shrink(files: OpenFiles, pages: int) -> int:
    """Return up to `pages` free pages, and write the log back; how many free pages are left.

    Every writer waits meanwhile, so `pages` should be small: 1,000 took 20 milliseconds. A
    reader that holds on to the log does not hold us up: the log then shrinks another time.
    Raises sqlite3.Error, OSError.
    """
    with files.alone(connect) as connection:
        connection.execute("pragma busy_timeout = 50")
        if pages:
            # Each step frees one page, and `execute` does one step: there are no rows to fetch.
            connection.executescript(f"pragma incremental_vacuum({int(pages)})")
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        return int(connection.execute("pragma freelist_count").fetchone()[0])


def finish_erasure(files: OpenFiles) -> bool:
    """Write the whole log back and truncate it, if something was erased.

    Returns False if a reader holds the log. In the database file, erased data was overwritten,
    because every writer sets `secure_delete`; the log has it until it is truncated. All writers
    wait meanwhile, so no erasure can come between the truncation and its record. Raises
    sqlite3.Error, OSError.
    """
    with files.alone(connect) as connection:
        if connection.execute("select 1 from erasures").fetchone() is None:
            return True
        connection.execute("pragma busy_timeout = 50")
        is_held, *_ = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
        if is_held:
            return False
        connection.execute("delete from erasures")
    return True


def has_remnants(files: OpenFiles, text: str) -> bool:
    """Return whether the bytes of a text are in the database file. Raises OSError.

    When SQLite divides a full page, it copies rows, and `secure_delete` does not overwrite where
    they were: about one of 400 references stays there after its row was erased.
    """
    wanted = text.encode("utf-8", "surrogatepass")
    if len(wanted) < SHORTEST_REMNANT:  # it would be found in other places
        return False
    before = b""
    for piece in files.pieces(PIECE):
        if wanted in before + piece:
            return True
        before = piece[-len(wanted) :]
    return False


def rebuild(files: OpenFiles) -> None:
    """Write all rows into new pages, while every writer waits. Raises sqlite3.Error, OSError."""
    with files.alone(connect) as connection:
        connection.execute("vacuum")
