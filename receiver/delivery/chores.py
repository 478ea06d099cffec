"""The periodic chores of a worker besides deliveries, each on its own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from threading import Event as Signal

import structlog

from receiver.clock import now_ms
from receiver.endpoints import Alert
from receiver.errors import DeliveryFailure, PermanentFailure, StoreUnavailable
from receiver.hooks.base import Alerting, Hook
from receiver.stores.base import Store
from receiver.stores.sql.metrics import without_hook

AGAIN_AFTER = 60_000  # ms until an alert that no hook could send is retried, for up to a day

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Chore:
    """A function that is called immediately, and then every `every` seconds."""

    name: str
    every: float
    run: Callable[[], object]


@contextmanager
def run_chores(chores: Sequence[Chore], stop: Signal) -> Iterator[None]:
    """Run the chores on daemon threads until `stop` is set; no chore delays the worker's exit."""
    for chore in chores:
        threading.Thread(target=_repeat, args=(chore, stop), name=chore.name, daemon=True).start()
    yield


def _repeat(chore: Chore, stop: Signal) -> None:
    while not stop.is_set():
        try:
            copy_context().run(chore.run)  # log values bound by the chore end with it
        except StoreUnavailable as error:
            if not stop.is_set():  # otherwise the worker has already closed the store
                log.error("the record is unavailable", chore=chore.name, error=str(error))
        except Exception:
            log.exception("a chore broke", chore=chore.name)
        stop.wait(chore.every)


@dataclass(frozen=True, slots=True)
class AlertSender:
    """Sends one alert for each change of an endpoint, through the hooks with `alerts = true`.

    `hooks` are pairs of a name and a hook.
    """

    store: Store
    hooks: Sequence[tuple[str, Alerting]] = ()
    clock: Callable[[], int] = now_ms

    def send(self) -> None:
        """Send every due alert through all hooks except the one that it is about.

        Raises StoreUnavailable.
        """
        now = self.clock()
        for alert in self.store.endpoints.take_alerts(now, now + AGAIN_AFTER):
            log.warning("endpoint", hook=alert.hook, alert=alert.kind, said=alert.said)
            others = [(name, hook) for name, hook in self.hooks if name != alert.hook]
            results = [self._is_sent(name, hook, alert) for name, hook in others]
            if True in results or None not in results:  # a hook has sent it, or no hook ever can
                self.store.endpoints.alert_sent(alert.id)

    def _is_sent(self, name: str, hook: Alerting, alert: Alert) -> bool | None:
        """Return whether the hook has sent the alert; None if it may succeed later."""
        try:
            hook.alert(alert)
        except DeliveryFailure as failure:
            log.error("an alert was not sent", by=name, about=alert.hook, error=str(failure))
            return False if isinstance(failure, PermanentFailure) else None
        return True


class MissingHooks:
    """Logs which deliveries wait because their hook is not in the hooks file."""

    def __init__(self, store: Store, loaded: Mapping[str, Hook]) -> None:
        self._store, self._loaded = store, loaded
        self._logged: frozenset[str] = frozenset()

    def log(self) -> None:
        """Log a warning if the set of missing hooks has changed. Raises StoreUnavailable."""
        missing = without_hook(self._store.metrics.delivery_counts(), self._loaded)
        if missing and frozenset(missing) != self._logged:
            log.warning("deliveries wait for hooks that are not in the hooks file", hooks=missing)
        self._logged = frozenset(missing)
