"""A dispatcher based on Procrastinate: any number of worker machines on one PostgreSQL.

A job contains only the id of a delivery. The delivery's row states the required work, and its
`due_at` is the only retry schedule. The sweep announces a delivery whose job was lost, and a second
job for the same delivery finds nothing to do. The job of a worker that died is given to another
worker, and counts as an attempt.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from threading import Event as Signal
from typing import Any

import procrastinate
import structlog
from procrastinate.exceptions import UniqueViolation
from procrastinate.jobs import Status
from procrastinate.periodic import PeriodicTask

from receiver.deliveries import Delivery, State
from receiver.delivery import attempt
from receiver.delivery.attempt import DRAIN, DeliveryWorker, ReadyDelivery
from receiver.delivery.worker_slots import Reservation
from receiver.errors import NotFound, StoreUnavailable
from receiver.stores.postgres import PostgresStore
from receiver.stores.postgres.jobs import QUEUE, TASK

UPKEEP = "upkeep"  # the queue of sweeps and rescues, which no backlog of deliveries delays
EVERY = "* * * * * */5"  # the last field is seconds
FETCH_EVERY = 1.0  # seconds between polls of the queue; a notification wakes a worker much sooner
LONGEST_NAP = 1.0  # seconds between two searches for deliveries that are due and have no job
BUSY_NAP = 0.1  # seconds, while attempts run: another slot may be free for a hook
BEATS_EVERY = 2.5  # seconds between Procrastinate's heartbeats
STALLED_AFTER = 12.5  # seconds without a heartbeat; our lease has expired by then
RESCUES = 10  # of one job; if its delivery is still due after that, the sweep announces it again
MADE_UP_FOR = 10.0  # seconds; older sweeps and rescues that were missed are skipped
DRAIN_POLL = 0.05  # seconds between two checks whether the running attempts have ended
AGAIN_AFTER = 1.0  # seconds until a new connection is tried after the database was lost

log = structlog.get_logger()
logging.getLogger("procrastinate").setLevel(logging.ERROR)  # `attempt` logs the attempts


class ProcrastinateDispatcher:
    """The dispatcher of one worker process."""

    def __init__(
        self, worker: DeliveryWorker, store: PostgresStore, *, drain: float = DRAIN
    ) -> None:
        self._worker = worker
        self._store = store
        self._drain = drain
        self._upkeep_at = 0.0
        self._without_slot: dict[str, bool] = {}  # hooks whose jobs were removed; see `Reservation`

    def run(self, stop: Signal) -> bool:
        """See `delivery.dispatcher.Dispatcher`.

        Procrastinate runs on a thread of its own. This thread renews the leases, and begins what is
        due without waiting for its job: retries, because Procrastinate looks for scheduled jobs
        only once a second, and deliveries whose jobs were removed or lost.
        """
        without_jobs = ThreadPoolExecutor(self._worker.concurrency, thread_name_prefix="delivery")
        thread = threading.Thread(
            target=lambda: asyncio.run(self._work(stop)), name="procrastinate", daemon=True
        )
        thread.start()
        while thread.is_alive() and not stop.is_set():
            self._upkeep()
            stop.wait(self._begin_due(without_jobs, stop))
        until = time.monotonic() + self._drain
        while (thread.is_alive() or self._worker.is_busy) and time.monotonic() < until:
            self._upkeep()
            time.sleep(DRAIN_POLL)
        is_drained = not thread.is_alive() and not self._worker.is_busy
        without_jobs.shutdown(wait=is_drained, cancel_futures=True)
        return is_drained

    def _begin_due(self, threads: ThreadPoolExecutor, stop: Signal) -> float:
        """Begin the deliveries that are due; return the seconds until the next look."""
        longest = BUSY_NAP if self._worker.is_busy else LONGEST_NAP
        if not self._worker.wait_for_slot(BUSY_NAP) or stop.is_set():
            return 0
        try:
            for ready in self._worker.claim():
                threads.submit(self._worker.run_slot, ready, stop)
            return self._worker.seconds_until_due(longest)
        except StoreUnavailable as error:
            self._worker.store_failed(error)
            return longest

    def _upkeep(self) -> None:
        """Renew the leases, every UPKEEP_EVERY seconds."""
        if time.monotonic() < self._upkeep_at:
            return
        self._upkeep_at = time.monotonic() + attempt.UPKEEP_EVERY
        try:
            self._worker.upkeep()
        except StoreUnavailable as error:
            self._worker.store_failed(error)

    async def _work(self, stop: Signal) -> None:
        """Run Procrastinate's workers until `stop`; restart them when they lose the database."""
        threads = ThreadPoolExecutor(self._worker.concurrency + 2, thread_name_prefix="delivery")
        asyncio.get_running_loop().set_default_executor(threads)
        while not stop.is_set():
            try:
                await self._until_lost(stop)
            except Exception as error:  # noqa: BLE001 - deliveries wait for this worker
                line = (str(error).strip() or type(error).__name__).splitlines()[0]
                log.error("the queue is unavailable", error=line, again_after_s=AGAIN_AFTER)
                await asyncio.sleep(AGAIN_AFTER)

    async def _until_lost(self, stop: Signal) -> None:
        """Run Procrastinate's workers until `stop`, or until one raises an error."""
        app: procrastinate.App = self._store.jobs.queue()
        self._register(app, stop)
        async with app.open_async():
            workers = [
                asyncio.create_task(
                    app.run_worker_async(
                        queues=[queue],
                        concurrency=concurrency,
                        fetch_job_polling_interval=FETCH_EVERY,
                        listen_notify=not self._store.database.is_pooled(),
                        update_heartbeat_interval=BEATS_EVERY,
                        stalled_worker_timeout=STALLED_AFTER,
                        delete_jobs="always",
                        install_signal_handlers=False,
                    )
                )
                for queue, concurrency in ((QUEUE, self._worker.concurrency), (UPKEEP, 1))
            ]
            stopping = asyncio.create_task(_wait_for(stop))
            try:
                await asyncio.wait([*workers, stopping], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (*workers, stopping):
                    task.cancel()  # a worker waits for its running jobs first
                await asyncio.gather(*workers, stopping, return_exceptions=True)
            for worker in workers:
                if not worker.cancelled() and (error := worker.exception()):
                    raise error

    def _register(self, app: procrastinate.App, stop: Signal) -> None:
        def attempt_(delivery_id: int) -> None:
            self._attempt(delivery_id, stop)

        async def rescue_(timestamp: int) -> None:  # noqa: ARG001 - when it was due
            await rescue(app)

        app.task(name=TASK, queue=QUEUE)(attempt_)
        for name, work in (("sweep", self._sweep), ("rescue", rescue_)):
            task = app.task(name=name, queue=UPKEEP, queueing_lock=name)(work)
            app.periodic_registry.periodic_tasks[name, ""] = StepProofTask(task, EVERY, "", {})

    def _attempt(self, delivery_id: int, stop: Signal) -> None:
        """Run one job on a thread; the row of the delivery decides what is done.

        Afterwards, the thread attempts the deliveries that are claimed for the same slot.
        """
        if stop.is_set():
            return  # a worker that runs begins the delivery without its job
        worker, now = self._worker, self._worker.clock()
        ready: list[ReadyDelivery] = []
        with Reservation(worker.slots) as reservation:
            lease_until = now + attempt.LEASE
            delivery = self._store.jobs.take(
                delivery_id, worker.name, now, lease_until, reservation
            )
            if delivery is not None:
                ready = worker.keep([delivery], reservation)
        self._without_slot |= reservation.refused
        for claimed in ready:
            worker.run_slot(claimed, stop)
        if delivery is None and (left := self._left_by_a_dead_worker(delivery_id, now)) is not None:
            worker.abandon(left)

    def _left_by_a_dead_worker(self, delivery_id: int, now: int) -> Delivery | None:
        try:
            delivery = self._store.queries.delivery(delivery_id)
        except NotFound:
            return None
        is_left = delivery.state is State.CLAIMED and (delivery.due_at or now) <= now
        return delivery if is_left else None

    def _sweep(self, timestamp: int) -> None:  # noqa: ARG002 - when it was due
        has_slot = self._worker.slots.has_slot
        without_slot = [
            hook
            for hook, timed_out in tuple(self._without_slot.items())
            if not has_slot(hook, timed_out=timed_out)
        ]
        # Deliveries of hooks with limits are claimed without jobs, as soon as the limits allow it.
        without_jobs = [*without_slot, *self._worker.slots.limits]
        announced = self._store.jobs.announce_missing(self._worker.clock(), without_jobs)
        if announced:
            log.info("deliveries without a job are announced", deliveries=announced)


class _Ticks:
    """The times of a periodic job; wraps Procrastinate's `croniter`.

    Procrastinate continues after the last time. If the clock was set back, the last time is in the
    future; if the clock was set forward, Procrastinate would make up for thousands of missed times.
    """

    def __init__(self, ticks: Any) -> None:
        self._ticks = ticks
        self.get_next, self.get_prev = ticks.get_next, ticks.get_prev

    def set_current(self, start_time: float) -> float:
        now = time.time()
        is_recent = now - MADE_UP_FOR <= start_time <= now + 1
        return float(self._ticks.set_current(start_time if is_recent else now - MADE_UP_FOR))


class StepProofTask(PeriodicTask[..., Any, ...]):
    """A periodic job that stays on schedule when the clock is set."""

    @cached_property
    def croniter(self) -> Any:
        return _Ticks(super().croniter)


async def rescue(app: procrastinate.App) -> None:
    """Give the jobs of dead workers to other workers.

    This cannot repeat forever: each attempt is recorded before its hook is called, and after the
    last attempt the delivery is dead, whatever happens to its jobs.
    """
    jobs = app.job_manager
    for job in await jobs.get_stalled_jobs(seconds_since_heartbeat=STALLED_AFTER):
        if job.attempts < RESCUES:
            with suppress(UniqueViolation):  # another job for the same delivery is waiting
                await jobs.retry_job(job)
                continue
        await jobs.finish_job(job, status=Status.FAILED, delete_job=True)


async def _wait_for(stop: Signal) -> None:
    while not stop.is_set():  # noqa: ASYNC110 - another thread sets it
        await asyncio.sleep(0.1)
