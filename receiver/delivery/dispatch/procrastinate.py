"""Deliveries handed out by Procrastinate: any number of worker machines on one PostgreSQL.

A job only says which delivery to look at; what is to be done stands in its row, and `due_at` there
is the only retry policy. A job that is lost is announced again by the sweep, one that is doubled
finds nothing to do, one whose worker died is given to another worker, and counts as an attempt.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
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

from receiver.clock import now_ms
from receiver.deliveries import Delivery, State
from receiver.delivery.attempt import Deliver
from receiver.delivery.dispatch import attempts
from receiver.delivery.dispatch.attempts import DRAIN, RunningAttempts
from receiver.delivery.dispatch.slots import Reservation
from receiver.errors import NotFound, StoreUnavailable
from receiver.stores.jobs import QUEUE, TASK, AnnouncingStore

UPKEEP = "upkeep"  # the queue of sweeps and rescues: no backlog of deliveries holds them up
EVERY = "* * * * * */5"  # seconds stand last
LOOK_EVERY = 1.0  # seconds between looks at the queue; a notification wakes a worker much sooner
BEATS_EVERY = 2.5  # seconds between Procrastinate's heartbeats
STALLED_AFTER = 12.5  # seconds without one; by then our lease is out too
RESCUES = 10  # of one job; what is still due then is announced anew
MADE_UP_FOR = 10.0  # seconds for which missed sweeps and rescues are made up for
AGAIN_AFTER = 1.0  # seconds, when the database was lost

log = structlog.get_logger()
logging.getLogger("procrastinate").setLevel(logging.ERROR)  # the lines of attempts are ours


class ProcrastinateDispatcher:
    """One worker process."""

    def __init__(
        self,
        store: AnnouncingStore,
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
        self._without_slot: dict[str, bool] = {}  # hooks whose jobs were removed; see `Reservation`

    def run(self, stop: Signal) -> bool:
        """Procrastinate's worker runs on a thread; this one keeps hold of what it does."""
        worker = threading.Thread(
            target=lambda: asyncio.run(self._work(stop)), name="procrastinate", daemon=True
        )
        worker.start()
        while worker.is_alive() and not stop.is_set():
            self._upkeep()
            stop.wait(attempts.UPKEEP_EVERY)
        until = time.monotonic() + self._drain
        while worker.is_alive() and time.monotonic() < until:
            self._upkeep()
            worker.join(min(attempts.UPKEEP_EVERY, max(0.0, until - time.monotonic())))
        return not worker.is_alive()

    def _upkeep(self) -> None:
        try:
            self._attempts.upkeep()
        except StoreUnavailable as error:
            self._attempts.store_failed(error)

    async def _work(self, stop: Signal) -> None:
        """Run Procrastinate's workers until `stop`; again whenever they lose the database."""
        threads = ThreadPoolExecutor(self._concurrency + 2, thread_name_prefix="delivery")
        asyncio.get_running_loop().set_default_executor(threads)
        while not stop.is_set():
            try:
                await self._until_lost(stop)
            except Exception as error:  # noqa: BLE001 - whatever it is, deliveries wait for us
                log.error("the queue is unavailable", error=_line(error), again_after_s=AGAIN_AFTER)
                await asyncio.sleep(AGAIN_AFTER)

    async def _until_lost(self, stop: Signal) -> None:
        app: procrastinate.App = self._store.queue()
        self._register(app)
        async with app.open_async():
            workers = [
                asyncio.create_task(
                    app.run_worker_async(
                        queues=[queue],
                        concurrency=concurrency,
                        fetch_job_polling_interval=LOOK_EVERY,
                        listen_notify=not self._store.is_pooled(),
                        update_heartbeat_interval=BEATS_EVERY,
                        stalled_worker_timeout=STALLED_AFTER,
                        delete_jobs="always",
                        install_signal_handlers=False,
                    )
                )
                for queue, concurrency in ((QUEUE, self._concurrency), (UPKEEP, 1))
            ]
            stopping = asyncio.create_task(_wait_for(stop))
            try:
                await asyncio.wait([*workers, stopping], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (*workers, stopping):
                    task.cancel()  # a worker lets what it runs end first
                await asyncio.gather(*workers, stopping, return_exceptions=True)
            for worker in workers:
                if not worker.cancelled() and (error := worker.exception()):
                    raise error

    def _register(self, app: procrastinate.App) -> None:
        async def rescue_(timestamp: int) -> None:  # noqa: ARG001 - when it was to run
            await rescue(app)

        app.task(name=TASK, queue=QUEUE)(self._attempt)
        for name, work in (("sweep", self._sweep), ("rescue", rescue_)):
            task = app.task(name=name, queue=UPKEEP, queueing_lock=name)(work)
            app.periodic_registry.periodic_tasks[name, ""] = StepProofTask(task, EVERY, "", {})

    def _attempt(self, delivery_id: int) -> None:
        """The job, on a thread: whatever the row says is to be done."""
        now = self._clock()
        until = self._attempts.lease_until(now)
        with Reservation(self._attempts.slots) as reservation:
            delivery = self._store.take(delivery_id, self._attempts.worker, now, until, reservation)
            if delivery is not None:
                reservation.keep([delivery.id])
        if delivery is not None:
            self._attempts.hold(delivery)
            self._attempts.make(delivery)
        elif (left := self._left_by_a_dead_worker(delivery_id, now)) is not None:
            self._attempts.abandon(left)
        self._without_slot |= reservation.refused
        if delivery is not None or reservation.refused:
            self._announce_next()

    def _announce_next(self) -> None:
        """Announce deliveries of hooks whose jobs were removed and that now have a slot."""
        for hook, timed_out in tuple(self._without_slot.items()):
            if available := self._attempts.slots.available_for(hook, timed_out=timed_out):
                self._without_slot.pop(hook, None)
                more = True
                try:
                    more = self._store.announce_next(hook, self._clock(), available)
                finally:
                    if more:
                        self._without_slot.setdefault(hook, False)

    def _left_by_a_dead_worker(self, delivery_id: int, now: int) -> Delivery | None:
        try:
            delivery = self._store.delivery(delivery_id)
        except NotFound:
            return None
        is_left = delivery.state is State.CLAIMED and (delivery.due_at or now) <= now
        return delivery if is_left else None

    def _sweep(self, timestamp: int) -> None:  # noqa: ARG002 - Procrastinate's, when it was due
        has_slot = self._attempts.slots.has_slot
        without_slot = [
            hook
            for hook, timed_out in tuple(self._without_slot.items())
            if not has_slot(hook, timed_out=timed_out)
        ]
        announced = self._store.announce_missing(self._clock(), without_slot)
        if announced:
            log.info("deliveries without a job are announced", deliveries=announced)


class _Ticks:
    """The times of a periodic job, as Procrastinate's `croniter` has them.

    Procrastinate continues after the last one. If the clock was set back, that one is in the
    future, and if the clock was set forward, there are thousands to make up for.
    """

    def __init__(self, ticks: Any) -> None:
        self._ticks = ticks
        self.get_next, self.get_prev = ticks.get_next, ticks.get_prev

    def set_current(self, start_time: float) -> float:
        now = time.time()
        is_recent = now - MADE_UP_FOR <= start_time <= now + 1
        return float(self._ticks.set_current(start_time if is_recent else now - MADE_UP_FOR))


class StepProofTask(PeriodicTask[..., Any, ...]):
    """A periodic job whose times go on after the clock was set."""

    @cached_property
    def croniter(self) -> Any:
        return _Ticks(super().croniter)


async def rescue(app: procrastinate.App) -> None:
    """Give the jobs of workers that are gone to others.

    That never goes in a circle: an attempt is on record before its hook is called, and after the
    last one the delivery is dead, whatever becomes of its jobs.
    """
    jobs = app.job_manager
    for job in await jobs.get_stalled_jobs(seconds_since_heartbeat=STALLED_AFTER):
        if job.attempts < RESCUES:
            with suppress(UniqueViolation):  # another job of the same delivery waits already
                await jobs.retry_job(job)
                continue
        await jobs.finish_job(job, status=Status.FAILED, delete_job=True)


async def _wait_for(stop: Signal) -> None:
    while not stop.is_set():  # noqa: ASYNC110 - another thread sets it
        await asyncio.sleep(0.1)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
