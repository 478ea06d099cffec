"""Makes many deliveries due again, and creates those that a hook added later never had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from receiver.deliveries import Subscription
from receiver.stores.base import Store
from receiver.stores.upkeep import DeliverySelection, RepairStep


def redeliver(
    store: Store, wanted: DeliverySelection, now: int, *, dry_run: bool
) -> Iterator[RepairStep]:
    """Every delivery that is meant, step by step. Raises StoreUnavailable."""
    step = store.redeliver_all(wanted, now, dry_run=dry_run)
    yield step
    while step.next is not None:
        step = store.redeliver_all(wanted, now, after=step.next, dry_run=dry_run)
        yield step


def catch_up(
    store: Store,
    subscriptions: Sequence[Subscription],
    wanted: DeliverySelection,
    now: int,
    *,
    dry_run: bool,
) -> Iterator[RepairStep]:
    """What the hook should have heard since then, step by step. Raises StoreUnavailable.

    Nothing without a hook and an instant, or for a hook that is not in the hooks file.
    """
    found = [known for known in subscriptions if known.hook == wanted.hook]
    if not found or wanted.since is None:
        return
    step = store.catch_up(found[0], wanted.since, now, dry_run=dry_run)
    yield step
    while step.next is not None:
        step = store.catch_up(found[0], wanted.since, now, before=step.next, dry_run=dry_run)
        yield step
