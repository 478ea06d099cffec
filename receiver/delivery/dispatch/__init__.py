"""The register of dispatchers: SQLite's record hands out its own deliveries, a queue the others."""

from __future__ import annotations

from typing import cast

from receiver.delivery.attempt import Deliver
from receiver.delivery.dispatch.base import Dispatcher
from receiver.delivery.dispatch.chores import Chore, chores
from receiver.delivery.dispatch.leases import LeaseDispatcher
from receiver.stores.base import Store
from receiver.stores.jobs import Announcing, AnnouncingStore


def dispatcher(store: Store, deliver: Deliver, *, concurrency: int) -> Dispatcher:
    """The dispatcher that goes with this store."""
    if not isinstance(store, Announcing):
        return LeaseDispatcher(store, deliver, concurrency=concurrency)
    from receiver.delivery.dispatch.procrastinate import ProcrastinateDispatcher  # noqa: PLC0415 - an extra

    announcing = cast("AnnouncingStore", store)
    return ProcrastinateDispatcher(announcing, deliver, concurrency=concurrency)


__all__ = ["Chore", "Dispatcher", "chores", "dispatcher"]
