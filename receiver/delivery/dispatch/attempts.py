"""The attempts that one worker process makes: kept hold of while they run, and put on record."""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable

import structlog

from receiver.clock import now_ms
from receiver.deliveries import Delivery, State
from receiver.delivery.attempt import ANSWER_KEPT, Deliver, concerning, unexpected
from receiver.delivery.dispatch.slots import WorkerSlots
from receiver.errors import StoreUnavailable
from receiver.stores.base import Store

LEASE = 10.0  # seconds a claim lasts unless renewed: how long a dead worker's deliveries wait
UPKEEP_EVERY = 2.5  # seconds between renewals
SEEN_EVERY = 10.0  # seconds between heartbeats
DRAIN = 25.0  # seconds to end what is under way; hosts kill 30 s after SIGTERM

log = structlog.get_logger()


class RunningAttempts:
    """What this process holds. May be used by several threads."""

    def __init__(
        self,
        store: Store,
        deliver: Deliver,
        clock: Callable[[], int] = now_ms,
        *,
        concurrency: int = 4,
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._clock = clock
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.slots = WorkerSlots(concurrency, is_known=lambda hook: hook in deliver.hooks)
        self._held: dict[int, Delivery] = {}
        self._lock = threading.Lock()
        self._seen_at = 0.0

    def __len__(self) -> int:
        """How many are claimed, and not on record yet."""
        return len(self._held)

    def lease_until(self, now: int) -> int:
        """The end of a lease that begins now."""
        return now + round(LEASE * 1000)

    def hold(self, delivery: Delivery) -> None:
        """Renew the lease of a claimed delivery until `make` attempted it and freed its slot."""
        with self._lock:
            self._held[delivery.id] = delivery

    def make(self, delivery: Delivery) -> None:
        """One attempt at a delivery that is held, from its beginning to its outcome on record."""
        state = State.PENDING
        with concerning(delivery):
            try:
                state = self._try(delivery)
                self._report(state)
            except StoreUnavailable as error:  # the lease runs out, and it is attempted again
                log.error("an outcome is not on record", error=str(error))
                self._deliver.meter.store_failed()
            finally:
                with self._lock:
                    self._held.pop(delivery.id, None)
                self.slots.end(delivery.id, delivered=state is State.DELIVERED)

    def abandon(self, delivery: Delivery) -> None:
        """End the attempt of a worker that is gone."""
        with concerning(delivery):
            self._report(self._deliver.abandoned(delivery))

    def store_failed(self, error: StoreUnavailable) -> None:
        """Say it, and count it."""
        log.error("the record is unavailable", error=str(error))
        self._deliver.meter.store_failed()

    def upkeep(self) -> None:
        """Hold on to what runs, and now and then be seen. Raises StoreUnavailable."""
        now = self._clock()
        with self._lock:
            held = list(self._held.values())
        if held:
            self._store.renew(held, self.lease_until(now))
        if time.monotonic() >= self._seen_at:
            self._store.heartbeat(self.worker, "worker", now)
            self._seen_at = time.monotonic() + SEEN_EVERY

    def _try(self, delivery: Delivery) -> State:
        """Whatever a hook raises ends here, as a failed attempt on record."""
        started_at = self._clock()
        try:
            return self._deliver.attempt(delivery)
        except StoreUnavailable:
            raise
        except Exception as error:
            log.exception("a hook broke")
            # Its end says what broke; only so much of an answer is kept.
            whole = self._deliver.hide("".join(traceback.format_exception(error)))
            failure = unexpected(error, whole[-ANSWER_KEPT:])
            return self._deliver.failed(delivery, started_at, failure)

    def _report(self, state: State) -> None:
        say, what = {
            State.DELIVERED: (log.info, "delivered"),
            State.PENDING: (log.warning, "attempt failed, due again"),
            State.DEAD: (log.error, "delivery is dead"),
        }[state]
        say(what)
