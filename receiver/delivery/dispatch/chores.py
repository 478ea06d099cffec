"""What a worker does beside deliveries, each at its own pace and on its own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from threading import Event as Signal

import structlog

from receiver.errors import StoreUnavailable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Chore:
    """`run` is called at once, and then every so many seconds."""

    name: str
    every: float
    run: Callable[[], object]


@contextmanager
def chores(wanted: Sequence[Chore], stop: Signal) -> Iterator[None]:
    """Do these until `stop` is set. Daemon threads: a chore never holds a worker's end up."""
    for chore in wanted:
        threading.Thread(target=_repeat, args=(chore, stop), name=chore.name, daemon=True).start()
    yield


def _repeat(chore: Chore, stop: Signal) -> None:
    while not stop.is_set():
        try:
            copy_context().run(chore.run)  # values that it binds appear in no later log line
        except StoreUnavailable as error:
            if not stop.is_set():  # else the worker closed the record while this chore used it
                log.error("the record is unavailable", chore=chore.name, error=str(error))
        except Exception:
            log.exception("a chore broke", chore=chore.name)
        stop.wait(chore.every)
