"""The migrations of this release, and the checks that a database has them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from receiver.errors import SchemaMismatch

# The migrations that the code of this release does not require, so that it can be started before
# `receiver migrate` is run on a database of the previous release. There is no previous release yet.
OPTIONAL: frozenset[str] = frozenset()
MIGRATIONS = Path(__file__).with_name("migrations")


def migrations(store: str) -> list[tuple[str, str]]:
    """Return the name and the text of each SQL file of a store, in order."""
    return [*_read(store)]


@cache
def _read(store: str) -> tuple[tuple[str, str], ...]:
    # Read once: the files of the release that this process runs, also after an upgrade.
    files = sorted((MIGRATIONS / store).iterdir())
    return tuple((file.stem, file.read_text()) for file in files)


def refuse_newer(database: str, applied: Collection[str], known: Collection[str]) -> None:
    """Raise SchemaMismatch if a migration was applied that this release does not have."""
    if unknown := sorted(set(applied) - set(known)):
        raise SchemaMismatch(
            f"{database} was written by a newer release (it has {unknown[-1]}); "
            "install that release or a later one"
        )


def refuse_older(
    database: str,
    applied: Collection[str],
    known: Sequence[str],
    optional: Collection[str] = OPTIONAL,
) -> None:
    """Raise SchemaMismatch if a required migration was not applied."""
    needed = [name for name in known if name not in applied and name not in optional]
    if needed:
        raise SchemaMismatch(f"{database} lacks {needed[0]}; run: receiver migrate")
