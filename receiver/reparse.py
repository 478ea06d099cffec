"""Parses the callbacks in quarantine again, for example after an update that understands more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from receiver.errors import NotFound, RequestRefused, StoreError
from receiver.ingest import Ingest
from receiver.tasks import Outcome

AT_ONCE = 500  # row keys that are read together


@dataclass(frozen=True, slots=True)
class Reparsed:
    """What became of one callback; `outcome` None: it could not be parsed, because of `problem`.

    `is_fault`: the adapter raised an error that no message should cause.
    """

    callback: int
    outcome: Outcome | None
    problem: str = ""
    is_fault: bool = False


def reparse(ingest: Ingest, since: int, *, dry_run: bool) -> Iterator[Reparsed]:
    """Replay each callback that was quarantined at that instant or later, oldest first.

    A callback that cannot be parsed stays as it is and stops no other. Raises StoreError.
    """
    after = 0
    while found := ingest.store.quarantined(since, after=after, limit=AT_ONCE):
        for callback in found:
            yield _replayed(ingest, callback, dry_run=dry_run)
        after = found[-1]


def _replayed(ingest: Ingest, callback: int, *, dry_run: bool) -> Reparsed:
    try:
        return Reparsed(callback, ingest.replay(callback, dry_run=dry_run))
    except RequestRefused as refusal:
        return Reparsed(callback, None, f"still not understood: {refusal}")
    except NotFound:  # it was empty, or `prune` erased it, perhaps a moment ago
        return Reparsed(callback, None, "has no body that could be parsed")
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - a fault of one adapter concerns its messages only
        problem = f"the adapter failed: {type(error).__name__}: {error}"
        return Reparsed(callback, None, problem, is_fault=True)
