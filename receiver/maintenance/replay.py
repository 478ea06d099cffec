"""Parses the callbacks in quarantine again, for example after an update that accepts more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from receiver.errors import NotFound, RequestRefused, StoreError
from receiver.ingest import Ingest
from receiver.tasks import Outcome

BATCH_SIZE = 500  # row keys per read


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result for one callback. If `outcome` is None, `problem` says why it was not parsed.

    `is_fault` is true if the adapter raised an exception that no message should cause.
    """

    callback: int
    outcome: Outcome | None
    problem: str = ""
    is_fault: bool = False


def reparse(ingest: Ingest, since: int, *, dry_run: bool) -> Iterator[ReplayResult]:
    """Replay each quarantined callback that was received at `since` or later, oldest first.

    A callback that cannot be parsed stays unchanged, and the others are still replayed. Raises
    StoreError.
    """
    after = 0
    while found := ingest.store.quarantined(since, after=after, limit=BATCH_SIZE):
        for callback in found:
            yield _replayed(ingest, callback, dry_run=dry_run)
        after = found[-1]


def _replayed(ingest: Ingest, callback: int, *, dry_run: bool) -> ReplayResult:
    try:
        return ReplayResult(callback, ingest.replay(callback, dry_run=dry_run))
    except RequestRefused as refusal:
        return ReplayResult(callback, None, f"still not understood: {refusal}")
    except NotFound:  # it was empty, or `prune` has erased it
        return ReplayResult(callback, None, "has no stored body to parse")
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - a bug of one adapter affects only its messages
        problem = f"the adapter failed: {type(error).__name__}: {error}"
        return ReplayResult(callback, None, problem, is_fault=True)
