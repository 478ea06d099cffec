"""A dispatcher that claims deliveries from the store: for one machine, without a queue server."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Signal

from receiver.delivery import attempt
from receiver.delivery.attempt import DRAIN, DeliveryWorker
from receiver.errors import StoreUnavailable

LONGEST_NAP = 1.0  # seconds; a commit wakes the worker much sooner
BUSY_NAP = 0.2  # seconds, while attempts run
PAUSE = 0.015  # seconds between two claims for which nothing was due, while attempts run
DRAIN_POLL = 0.05  # seconds between two checks whether the running attempts have ended


class LeaseDispatcher:
    """The dispatcher of one worker process."""

    def __init__(self, worker: DeliveryWorker, *, drain: float = DRAIN) -> None:
        self._worker = worker
        self._store = worker.store
        self._drain = drain
        self._upkeep_at = 0.0

    def run(self, stop: Signal) -> bool:
        """See `delivery.dispatcher.Dispatcher`."""
        pool = ThreadPoolExecutor(self._worker.concurrency, thread_name_prefix="delivery")
        while not stop.is_set():
            try:
                self._round(pool, stop)
            except StoreUnavailable as error:
                self._worker.store_failed(error)
                stop.wait(1)
        drained = self._wait_for_running(time.monotonic() + self._drain)
        pool.shutdown(wait=drained, cancel_futures=True)
        return drained

    def _round(self, pool: ThreadPoolExecutor, stop: Signal) -> None:
        """Start the deliveries that are due; if there are none, sleep until something changes."""
        self._upkeep()
        if not self._worker.wait_for_slot(BUSY_NAP) or stop.is_set():
            return
        claimed = self._worker.claim()
        for delivery in claimed:
            pool.submit(self._worker.run_slot, delivery, stop)
        if claimed:
            return
        if is_busy := self._worker.is_busy:
            stop.wait(PAUSE)  # the commits of running attempts would wake this thread at once
        nap = self._worker.seconds_until_due(BUSY_NAP if is_busy else LONGEST_NAP)
        self._store.database.wait_for_commit(nap, stop)

    def _upkeep(self) -> None:
        """Every UPKEEP_EVERY seconds: renew leases, and end the attempts of dead workers."""
        if time.monotonic() < self._upkeep_at:
            return
        self._upkeep_at = time.monotonic() + attempt.UPKEEP_EVERY
        self._worker.upkeep()
        for delivery in self._store.outbox.expired(self._worker.clock()):
            self._worker.abandon(delivery)

    def _wait_for_running(self, until: float) -> bool:
        """Wait for running attempts while renewing their leases; return False at the deadline."""
        while self._worker.is_busy and time.monotonic() < until:
            time.sleep(DRAIN_POLL)
            try:
                self._upkeep()
            except StoreUnavailable as error:
                self._worker.store_failed(error)
        return not self._worker.is_busy
