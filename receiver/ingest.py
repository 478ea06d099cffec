"""The one way in: what a provider said, by callback or by query, becomes the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from receiver import hooks_file, providers
from receiver.deliveries import Subscription
from receiver.errors import NotFound, RequestRefused
from receiver.events import Callback, Event
from receiver.hooks_file import HookEntry
from receiver.settings import Settings
from receiver.stores.base import Store
from receiver.tasks import Outcome


def hook_entries(settings: Settings) -> tuple[HookEntry, ...]:
    """The hooks file, with statuses in any provider's spelling. Raises SettingsError."""
    return hooks_file.load(settings.hooks_file, providers.spelling, providers.PROVIDERS)


@dataclass(frozen=True, slots=True)
class Ingest:
    """Parses and records for one store and one set of subscriptions."""

    store: Store
    subscriptions: Sequence[Subscription] = ()

    @classmethod
    def into(cls, store: Store, settings: Settings) -> Ingest:
        """The way into this store, for the hooks of these settings. Raises SettingsError."""
        return cls(store, [entry.subscription for entry in hook_entries(settings)])

    def accept(self, callback: Callback) -> Outcome:
        """Parse and record one message of a provider; durable when it returns.

        Raises NotJson or NotTheProtocol, with the message in quarantine, and StoreUnavailable.
        """
        try:
            event = providers.get(callback.provider).parse(callback)
        except RequestRefused as refusal:
            self.store.quarantine(callback, str(refusal))
            raise
        return self.record(callback, event)

    def record(self, callback: Callback, event: Event) -> Outcome:
        """Record a message whose meaning is known; durable when it returns."""
        return self.store.record(callback, event, self.subscriptions)

    def replay(self, callback_id: int) -> Outcome:
        """Send a stored message through parse and record again.

        Raises NotFound, and NotJson or NotTheProtocol if it is still not understood.
        """
        stored = self.store.callback(callback_id)
        if not stored.callback.body:
            raise NotFound(f"callback {callback_id} has no body to replay")
        event = providers.get(stored.callback.provider).parse(stored.callback)
        return self.store.reopen(callback_id, event, self.subscriptions)
