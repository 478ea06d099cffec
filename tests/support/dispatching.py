"""A dispatcher on a thread of the test's own, with hooks that call a function of the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from receiver.deliver import Deliver
from receiver.deliveries import Notice, State
from receiver.dispatch.base import Dispatcher
from receiver.dispatch.leases import LeaseDispatcher
from receiver.dispatch.procrastinate import ProcrastinateDispatcher
from receiver.endpoints import Breaker
from receiver.hooks.base import Done
from receiver.retry import RetryPolicy
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore

Send = Callable[[Notice], Done]


class Calls:
    """A hook that calls a function of the test."""

    def __init__(self, function: Send) -> None:
        self.name = "mail"
        self.send = function


class Running:
    """The dispatcher that goes with the store, stopped by `stop`."""

    def __init__(self, store: Store, send: Send, **more: float) -> None:
        self.signal = threading.Event()
        policy = RetryPolicy(delays=(0.05, 0.05))
        self.hooks = {"mail": Calls(send), "slow": Calls(send)}
        deliver = Deliver(
            store, self.hooks, policy, Breaker(failures=3, seconds=0.2, pauses=(0.3,))
        )
        make = ProcrastinateDispatcher if isinstance(store, PostgresStore) else LeaseDispatcher
        self.dispatcher: Dispatcher = make(store, deliver, **more)  # type: ignore[arg-type]
        self.drained: list[bool] = []
        self.thread = threading.Thread(
            target=lambda: self.drained.append(self.dispatcher.run(self.signal))
        )
        self.thread.start()

    def stop(self) -> bool:
        self.signal.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.drained[0]


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def delivered(store: Store) -> int:
    return len(store.deliveries(state=State.DELIVERED, limit=1000))
