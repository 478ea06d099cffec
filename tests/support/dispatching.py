"""Dispatchers on threads of the test, with hooks that call a function of the test."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from receiver.deliveries import Notice, State
from receiver.delivery.attempt import DRAIN, DeliveryWorker
from receiver.delivery.dispatcher import Dispatcher
from receiver.delivery.leases import LeaseDispatcher
from receiver.delivery.procrastinate import ProcrastinateDispatcher
from receiver.endpoints import Breaker
from receiver.hooks.base import Done
from receiver.outgoing.retry import RetryPolicy
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from tests.support.patience import PATIENCE

Send = Callable[[Notice], Done]
Start = Callable[..., "Running"]
POLICY = RetryPolicy(delays=(0.05, 0.05))
BREAKER = Breaker(failures=3, seconds=0.2, pauses=(0.3,))


class Calls:
    """A hook that calls a function of the test."""

    def __init__(self, function: Send) -> None:
        self.name = "mail"
        self.send = function


class StopSignal(threading.Event):
    """An event that sets `was_seen` when a caller has read that it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.was_seen = threading.Event()

    def is_set(self) -> bool:
        return self._noted(super().is_set())

    def wait(self, timeout: float | None = None) -> bool:
        return self._noted(super().wait(timeout))

    def _noted(self, is_set: bool) -> bool:
        if is_set:
            self.was_seen.set()
        return is_set


class _StopsOfWorkers(logging.Handler):
    """Counts the Procrastinate workers that were requested to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.msg == "Stop requested"


class Running:
    """A running dispatcher of the kind that the store needs; `stop` ends it."""

    def __init__(
        self,
        store: Store,
        send: Send,
        *,
        breaker: Breaker = BREAKER,
        policy: RetryPolicy = POLICY,
        drain: float = DRAIN,
        **more: Any,
    ) -> None:
        self.signal = StopSignal()
        self.hooks = {name: Calls(send) for name in ("mail", "slow", "other", "more")}
        worker = DeliveryWorker(store, self.hooks, policy, breaker, **more)
        self.dispatcher: Dispatcher = (
            ProcrastinateDispatcher(worker, store, drain=drain)
            if isinstance(store, PostgresStore)
            else LeaseDispatcher(worker, drain=drain)
        )
        self.drained: list[bool] = []
        self.thread = threading.Thread(
            target=lambda: self.drained.append(self.dispatcher.run(self.signal))
        )
        self.thread.start()

    def stop(self) -> bool:
        """Stop the dispatcher; return whether all running attempts ended."""
        self.signal.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return self.drained[0]


@contextmanager
def dispatchers(store: Store) -> Iterator[Start]:
    """Return a function that starts dispatchers on the store; they stop at the end of the block."""
    running: list[Running] = []

    def start(send: Send, **more: Any) -> Running:
        running.append(Running(store, send, **more))
        return running[-1]

    yield start
    for one in running:
        one.signal.set()
    for one in running:
        one.stop()


@contextmanager
def working(deliver: DeliveryWorker) -> Iterator[None]:
    """Run a lease dispatcher during the block; then wait for the deliveries that it has begun."""
    stop = threading.Event()
    worker = threading.Thread(target=LeaseDispatcher(deliver).run, args=(stop,))
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join(PATIENCE)
    assert not worker.is_alive()


@contextmanager
def stops_of_workers() -> Iterator[Callable[[], int]]:
    """Count the Procrastinate workers that began to stop within the block; there are two."""
    logger, handler = logging.getLogger("procrastinate"), _StopsOfWorkers()
    level, propagates = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # only this handler receives the lines
    logger.addHandler(handler)
    try:
        yield lambda: handler.count
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


def delivered(store: Store) -> int:
    return len(store.lists.deliveries(state=State.DELIVERED, limit=1000))
