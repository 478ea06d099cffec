"""The contract of dispatchers, and the choice of the one for a store."""

from __future__ import annotations

from threading import Event as Signal
from typing import Protocol, cast

from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.leases import LeaseDispatcher


class Dispatcher(Protocol):
    """Decides which deliveries a worker runs, and when; each runs in only one worker."""

    def run(self, stop: Signal) -> bool:
        """Run deliveries until `stop` is set, then wait for the running attempts.

        Returns False if some did not end in time: their leases expire, and the deliveries are
        attempted again.
        """
        ...


def dispatcher(worker: DeliveryWorker) -> Dispatcher:
    """Return the dispatcher for the worker's store."""
    if not worker.store.has_job_queue:
        return LeaseDispatcher(worker)
    from receiver.delivery.procrastinate import ProcrastinateDispatcher  # noqa: PLC0415 - an extra
    from receiver.stores.postgres import PostgresStore  # noqa: PLC0415 - an extra

    return ProcrastinateDispatcher(worker, cast("PostgresStore", worker.store))
