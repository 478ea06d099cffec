"""Releases free space of the database file, and removes copies of erased data."""

from __future__ import annotations

from receiver.stores.sqlite.files import OpenFiles
from receiver.stores.sqlite.readers import connect

PIECE = 2**20  # bytes of one read
SHORTEST_REMNANT = 6  # bytes


def shrink(files: OpenFiles, pages: int) -> int:
    """Release up to `pages` free pages, write the log back, and return how many pages are left.

    Every writer waits meanwhile, so `pages` should be small: 1,000 pages took 20 milliseconds. If a
    reader is using the log, it is truncated by a later call. Raises sqlite3.Error, OSError.
    """
    with files.alone(connect) as connection:
        connection.execute("pragma busy_timeout = 50")
        if pages:
            # `execute` would do one step only, which releases one page.
            connection.executescript(f"pragma incremental_vacuum({int(pages)})")
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        return int(connection.execute("pragma freelist_count").fetchone()[0])


def finish_erasure(files: OpenFiles) -> bool:
    """Write the whole log back and truncate it, if anything was erased.

    Returns False if a reader uses the log. In the database file, erased data was overwritten,
    because every writer sets `secure_delete`; the log contains it until it is truncated. All
    writers wait meanwhile, so no erasure can come between the truncation and its record. Raises
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

    When SQLite splits a full page, it copies rows, and `secure_delete` does not overwrite the
    originals: about one of 400 references stays there after its row was erased.
    """
    wanted = text.encode("utf-8", "surrogatepass")
    if len(wanted) < SHORTEST_REMNANT:  # the text may occur in other data
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
