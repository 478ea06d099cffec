"""Which migrations there are, and which of them a database must have to be served."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import resources

from receiver.errors import SchemaMismatch

# The migrations of this release that its code can do without: a database that is one release older
# is served, so that new code may start before `receiver migrate` has run. There was no release yet.
OPTIONAL: frozenset[str] = frozenset()


def migrations(store: str) -> list[tuple[str, str]]:
    """The numbered SQL files of a store, by name, in order."""
    folder = resources.files("receiver.stores").joinpath("migrations", store)
    found = [(entry.name.removesuffix(".sql"), entry) for entry in folder.iterdir()]
    return [(name, entry.read_text()) for name, entry in sorted(found, key=lambda pair: pair[0])]


def refuse_newer(database: str, applied: Collection[str], known: Collection[str]) -> None:
    """Raises SchemaMismatch if a migration was applied that this code does not know."""
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
    """Raises SchemaMismatch, saying what to run, if a migration is missing that is needed."""
    needed = [name for name in known if name not in applied and name not in optional]
    if needed:
        raise SchemaMismatch(f"{database} lacks {needed[0]}; run: receiver migrate")
