"""Which SQLite is linked, and whether it has the WAL-reset bug; pure."""

from __future__ import annotations

Version = tuple[int, int, int]
FIXED: Version = (3, 51, 3)
BACKPORTS: tuple[Version, ...] = ((3, 44, 6), (3, 50, 7))


def described(version: Version) -> str:
    """The version, and what is to be known of it."""
    name = f"SQLite {'.'.join(map(str, version))}"
    if not has_wal_reset_bug(version):
        return name
    return (
        f"{name}, which has the WAL-reset bug (mended in 3.51.3, 3.50.7 and 3.44.6); our file "
        "lock excludes it: let no other program write to the file"
    )


def has_wal_reset_bug(version: Version) -> bool:
    """Can a write that races a checkpoint lose commits?"""
    is_backport = any(version[:2] == one[:2] and version >= one for one in BACKPORTS)
    return version < FIXED and not is_backport
