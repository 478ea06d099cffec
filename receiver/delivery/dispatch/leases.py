"""Deliveries claimed by lease from the record itself: for one machine, without a queue server."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event as Signal

import structlog

from receiver.clock import now_ms
from receiver.deliveries import Delivery
from receiver.delivery.attempt import Deliver
from receiver.delivery.dispatch import attempts
from receiver.delivery.dispatch.attempts import DRAIN, RunningAttempts
from receiver.delivery.dispatch.slots import Reservation
from receiver.errors import StoreUnavailable
from receiver.stores.base import Store

LONGEST_NAP = 1.0  # seconds; a commit wakes the worker much sooner
BUSY_NAP = 0.2  # seconds, while attempts run

log = structlog.get_logger()


class LeaseDispatcher:
    """One worker process."""

    def __init__(
        self,
        store: Store,
        deliver: Deliver,
        *,
        concurrency: int = 4,
        drain: float = DRAIN,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._store = store
        self._concurrency = concurrency
        self._drain = drain
        self._clock = clock
        self._attempts = RunningAttempts(store, deliver, clock, concurrency=concurrency)
        self._running: set[Future[None]] = set()
        self._upkeep_at = 0.0

    def run(self, stop: Signal) -> bool:
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="delivery")
        while not stop.is_set():
            try:
                self._round(pool, stop)
            except StoreUnavailable as error:
                self._attempts.store_failed(error)
                stop.wait(1)
        drained = self._wait_for_running(time.monotonic() + self._drain)
        pool.shutdown(wait=drained, cancel_futures=True)
        return drained

    def _round(self, pool: ThreadPoolExecutor, stop: Signal) -> None:
        """Start what is due; if there is nothing to start, sleep until something changes."""
        self._forget_ended()
        self._upkeep()
        free = self._attempts.slots.free
        claimed = self._claim(free) if free else []
        for delivery in claimed:
            self._running.add(pool.submit(self._attempts.make, delivery))
        if not claimed:
            self._store.wait_for_commit(self._nap(), stop)

    def _claim(self, limit: int) -> list[Delivery]:
        now = self._clock()
        until = self._attempts.lease_until(now)
        with Reservation(self._attempts.slots) as reservation:
            claimed = self._store.claim(self._attempts.worker, now, until, limit, reservation)
            reservation.keep([delivery.id for delivery in claimed])
        for delivery in claimed:
            self._attempts.hold(delivery)
        return claimed

    def _nap(self) -> float:
        # An attempt frees its slot only after the commit that wakes this thread.
        longest = min(LONGEST_NAP, BUSY_NAP) if len(self._attempts) else LONGEST_NAP
        now = self._clock()
        due_at = self._store.next_due_at(now, self._attempts.slots)
        if due_at is None or due_at <= now:  # due since the claim
            return longest
        return min(longest, (due_at - now) / 1000)

    def _upkeep(self) -> None:
        """Now and then: hold on to what runs, be seen, and end what dead workers left."""
        if time.monotonic() < self._upkeep_at:
            return
        self._upkeep_at = time.monotonic() + attempts.UPKEEP_EVERY
        self._attempts.upkeep()
        for delivery in self._store.expired(self._clock()):
            self._attempts.abandon(delivery)

    def _forget_ended(self) -> None:
        for future in [future for future in self._running if future.done()]:
            self._running.remove(future)
            if error := future.exception():
                log.error("an attempt broke", error=repr(error))

    def _wait_for_running(self, until: float) -> bool:
        """Let what runs end, and keep its leases; False if it takes too long."""
        while self._running and time.monotonic() < until:
            wait(self._running, timeout=0.2)
            self._forget_ended()
            try:
                self._upkeep()
            except StoreUnavailable as error:
                self._attempts.store_failed(error)
        return not self._running
