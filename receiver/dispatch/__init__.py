"""The register of dispatchers: SQLite's record hands out its own deliveries."""

from __future__ import annotations

from receiver.deliver import Deliver
from receiver.dispatch.base import Dispatcher
from receiver.dispatch.chores import Chore, chores
from receiver.dispatch.leases import LeaseDispatcher
from receiver.stores.base import Store


def dispatcher(store: Store, deliver: Deliver, *, concurrency: int) -> Dispatcher:
    """The dispatcher that goes with this store."""
    return LeaseDispatcher(store, deliver, concurrency=concurrency)


__all__ = ["Chore", "Dispatcher", "chores", "dispatcher"]
