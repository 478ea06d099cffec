"""Deliveries claimed by lease from the record itself: for one machine, without a queue server."""

from __future__ import annotations

import os
import socket
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event as Signal

import structlog

from receiver.clock import now_ms
from receiver.deliver import ANSWER_KEPT, Deliver, concerning
from receiver.deliveries import Delivery, State
from receiver.errors import StoreUnavailable, TemporaryFailure
from receiver.stores.base import Store

LEASE = 10.0  # seconds a claim lasts unless renewed: how long a dead worker's deliveries wait
UPKEEP_EVERY = 2.5  # seconds between renewals, and looks for leases that ran out
SEEN_EVERY = 10.0  # seconds between heartbeats
LONGEST_NAP = 1.0  # seconds; a commit wakes the worker much sooner
DRAIN = 25.0  # seconds to end what is under way; hosts kill 30 s after SIGTERM

log = structlog.get_logger()


class LeaseDispatcher:
    """One worker process."""

    def __init__(
        self, store: Store, deliver: Deliver, *, concurrency: int = 4, drain: float = DRAIN
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._concurrency = concurrency
        self._drain = drain
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._running: dict[Future[None], Delivery] = {}
        self._upkeep_at = 0.0
        self._seen_at = 0.0

    def run(self, stop: Signal) -> bool:
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="delivery")
        while not stop.is_set():
            try:
                self._round(pool, stop)
            except StoreUnavailable as error:
                log.error("the record is unavailable", error=str(error), again_after_s=1)
                self._deliver.meter.store_failed()
                stop.wait(1)
        drained = self._wait_for_running(time.monotonic() + self._drain)
        pool.shutdown(wait=drained, cancel_futures=True)
        return drained

    def _round(self, pool: ThreadPoolExecutor, stop: Signal) -> None:
        """Start what is due; if there is nothing to start, sleep until something changes."""
        self._forget_ended()
        self._upkeep()
        free = self._concurrency - len(self._running)
        claimed = self._claim(free) if free else []
        for delivery in claimed:
            self._running[pool.submit(self._attempt, delivery)] = delivery
        if not claimed:
            self._store.wait_for_commit(self._nap(), stop)

    def _claim(self, limit: int) -> list[Delivery]:
        now = now_ms()
        return self._store.claim(self._name, now, now + round(LEASE * 1000), limit)

    def _nap(self) -> float:
        now = now_ms()
        due_at = self._store.next_due_at(now)
        if due_at is None or len(self._running) >= self._concurrency:
            return LONGEST_NAP
        return min(LONGEST_NAP, max(0.0, (due_at - now) / 1000))

    def _attempt(self, delivery: Delivery) -> None:
        """One attempt, on a thread of the pool."""
        with concerning(delivery):
            try:
                self._report(self._try(delivery))
            except StoreUnavailable as error:  # the lease runs out, and it is attempted again
                log.error("an outcome is not on record", error=str(error))
                self._deliver.meter.store_failed()

    def _try(self, delivery: Delivery) -> State:
        """Whatever a hook raises ends here, as a failed attempt on record."""
        started_at = now_ms()
        try:
            return self._deliver.attempt(delivery)
        except StoreUnavailable:
            raise
        except Exception as error:
            log.exception("a hook broke")
            # Its end says what broke; only so much of an answer is kept.
            text = "".join(traceback.format_exception(error))[-ANSWER_KEPT:]
            failure = TemporaryFailure(text)
            return self._deliver.failed(delivery, started_at, failure)

    def _report(self, state: State) -> None:
        say, what = {
            State.DELIVERED: (log.info, "delivered"),
            State.PENDING: (log.warning, "attempt failed, due again"),
            State.DEAD: (log.error, "delivery is dead"),
        }[state]
        say(what)

    def _upkeep(self) -> None:
        """Now and then: hold on to what runs, be seen, and end what dead workers left."""
        if time.monotonic() < self._upkeep_at:
            return
        self._upkeep_at = time.monotonic() + UPKEEP_EVERY
        now = now_ms()
        if self._running:
            self._store.renew(list(self._running.values()), now + round(LEASE * 1000))
        if time.monotonic() >= self._seen_at:
            self._store.heartbeat(self._name, "worker", now)
            self._seen_at = time.monotonic() + SEEN_EVERY
        for delivery in self._store.expired(now):
            with concerning(delivery):
                self._report(self._deliver.abandoned(delivery))

    def _forget_ended(self) -> None:
        for future in [future for future in self._running if future.done()]:
            del self._running[future]
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
                log.error("the record is unavailable", error=str(error))
        return not self._running
