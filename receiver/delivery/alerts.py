"""Tells people of endpoints that fail, and of those that work again: once for each change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from receiver.clock import now_ms
from receiver.endpoints import Alert as Message
from receiver.errors import DeliveryFailure, PermanentFailure
from receiver.hooks.base import Alerting
from receiver.stores.base import Store

AGAIN_AFTER = 60_000  # ms; an alert that nobody could be told of is tried again for a day

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AlertSender:
    """Sends what waits by the hooks (by name) that have `alerts = true`."""

    store: Store
    hooks: Sequence[tuple[str, Alerting]] = ()
    clock: Callable[[], int] = now_ms

    def send(self) -> None:
        """Send every alert that is due. Raises StoreUnavailable."""
        now = self.clock()
        for message in self.store.take_alerts(now, now + AGAIN_AFTER):
            log.warning("endpoint", hook=message.hook, alert=message.kind, said=message.said)
            if self._is_settled(message):
                self.store.alert_sent(message.id)

    def _is_settled(self, message: Message) -> bool:
        """Has somebody been told, or can nobody be? The endpoint itself is not asked to."""
        others = [(name, hook) for name, hook in self.hooks if name != message.hook]
        told = [self._outcome(name, hook, message) for name, hook in others]
        return "told" in told or "later" not in told

    def _outcome(self, name: str, hook: Alerting, message: Message) -> str:
        try:
            hook.alert(message)
        except DeliveryFailure as failure:
            log.error("an alert was not sent", by=name, about=message.hook, error=str(failure))
            return "never" if isinstance(failure, PermanentFailure) else "later"
        return "told"
