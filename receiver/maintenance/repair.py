"""Makes deliveries due again, creates missing ones, and replays callbacks in quarantine.

Each function works in small steps and yields the result of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from receiver.deliveries import Subscription
from receiver.errors import NotFound, RequestRefused, StoreError
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.repair import DeliverySelection, RepairStep
from receiver.tasks import Outcome

BATCH_SIZE = 500  # callbacks in quarantine per read


def redeliver(
    store: Store,
    subscriptions: Sequence[Subscription],
    wanted: DeliverySelection,
    now: int,
    *,
    dry_run: bool,
) -> Iterator[RepairStep]:
    """Make all selected deliveries due. Raises StoreUnavailable."""
    after: int | None = 0
    while after is not None:
        step = store.repair.redeliver_all(wanted, now, subscriptions, after=after, dry_run=dry_run)
        yield step
        after = step.next


def catch_up(
    store: Store,
    subscriptions: Sequence[Subscription],
    wanted: DeliverySelection,
    now: int,
    *,
    dry_run: bool,
) -> Iterator[RepairStep]:
    """Create the deliveries that the hook has missed since `wanted.since`.

    Does nothing without a `hook` and a `since`, or if the hook is not in the hooks file. Raises
    StoreUnavailable.
    """
    subscription = next((one for one in subscriptions if one.hook == wanted.hook), None)
    if subscription is None or wanted.since is None:
        return
    before = None
    while True:
        step = store.repair.catch_up(
            subscription, wanted.since, now, before=before, dry_run=dry_run
        )
        yield step
        if (before := step.next) is None:
            return


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result for one callback. If `outcome` is None, `problem` says why it was not parsed.

    `is_fault` is true if the adapter raised an exception that no message should cause.
    """

    callback: int
    outcome: Outcome | None
    problem: str = ""
    is_fault: bool = False


def replay(ingest: Ingest, since: int, *, dry_run: bool) -> Iterator[ReplayResult]:
    """Replay each quarantined callback that was received at `since` or later, oldest first.

    This is useful after an update that can interpret more. A callback that cannot be parsed stays
    unchanged, and the others are still replayed. Raises StoreError.
    """
    after = 0
    while callbacks := ingest.store.repair.quarantined(since, after=after, limit=BATCH_SIZE):
        for callback in callbacks:
            yield _replayed(ingest, callback, dry_run=dry_run)
        after = callbacks[-1]


def _replayed(ingest: Ingest, callback: int, *, dry_run: bool) -> ReplayResult:
    try:
        return ReplayResult(callback, ingest.replay(callback, dry_run=dry_run))
    except RequestRefused as refusal:
        return ReplayResult(callback, None, f"still not understood: {refusal}")
    except NotFound:  # the body was empty, or `prune` has erased it
        return ReplayResult(callback, None, "has no stored body to parse")
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - a bug of one adapter affects only its messages
        problem = f"the adapter failed: {type(error).__name__}: {error}"
        return ReplayResult(callback, None, problem, is_fault=True)
