"""The one way in: what a provider said, by callback or by query, becomes the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from structlog.contextvars import bind_contextvars

from receiver import hooks_file, measures, providers, signing
from receiver.clock import now_ms
from receiver.deliveries import Subscription
from receiver.errors import NotFound, RequestRefused, SettingsError
from receiver.events import Callback, Event, Source
from receiver.hooks_file import HookEntry
from receiver.meter import Meter
from receiver.settings import Confirm, Settings
from receiver.stores.base import Store
from receiver.stores.group_commit import Write
from receiver.tasks import Outcome, Status, Task, Trust, new_task_id

ANNOUNCED_FOR = 600_000  # ms until the provider is asked about a task that others create


def hook_entries(settings: Settings) -> tuple[HookEntry, ...]:
    """The hooks file, with statuses in any provider's spelling. Raises SettingsError."""
    return hooks_file.load(settings.hooks_file, providers.spelling, providers.PROVIDERS)


def announce(
    store: Store, settings: Settings, provider: str, reference: str | None, account: str
) -> tuple[Task, str]:
    """Put a task on record that somebody else creates at the provider; and its callback URL.

    Raises SettingsError, and StoreUnavailable.
    """
    if settings.public_url is None:
        raise SettingsError(["PUBLIC_URL: not set; it is where the provider reaches this machine"])
    if not providers.get(provider).has_callbacks:
        raise SettingsError([f"{provider} has no callbacks: submit with `submitter submit`"])
    now = now_ms()
    task = Task(
        id=new_task_id(now),
        provider=provider,
        status=Status.CREATED,
        created_at=now,
        updated_at=now,
        account=account,
        reference=reference,
        expects_callback=True,
        deadline_at=now + ANNOUNCED_FOR,
    )
    store.create_task(task)
    secret = settings.callback_secrets[0]
    return task, signing.callback_url(settings.public_url, secret, provider, task.id)


@dataclass(frozen=True, slots=True)
class Ingest:
    """Parses and records for one store and one set of subscriptions."""

    store: Store
    subscriptions: Sequence[Subscription] = ()
    confirm: Confirm = Confirm.NEVER
    meter: Meter = field(default_factory=Meter)

    @classmethod
    def into(cls, store: Store, settings: Settings, meter: Meter | None = None) -> Ingest:
        """The way into this store, for the hooks of these settings. Raises SettingsError."""
        subscriptions = [entry.subscription for entry in hook_entries(settings)]
        return cls(store, subscriptions, settings.confirm, meter or Meter())

    def accept(self, callback: Callback) -> Outcome:
        """Parse and record one message of a provider; durable when it returns.

        Raises NotJson or NotTheProtocol, with the message in quarantine, and StoreUnavailable.
        """
        try:
            event = providers.get(callback.provider).parse(callback)
        except RequestRefused as refusal:
            self.store.quarantine(callback, str(refusal))
            self.count(callback, None, Outcome.QUARANTINED)
            raise
        if callback.task_id is None:  # signed: which task it is, only its words say
            bind_contextvars(provider_task=event.provider_task_id)
        outcome = self.record(callback, event)
        self.count(callback, event, outcome)
        return outcome

    def submit(self, callback: Callback, event: Event) -> Write[Any, Outcome]:
        """`record`, without waiting for the commit: see `stores.base.Inbox.submit`."""
        confirm = self._must_be_confirmed(callback, event)
        return self.store.submit(callback, event, self.subscriptions, confirm=confirm)

    def record(self, callback: Callback, event: Event) -> Outcome:
        """Record a message whose meaning is known; durable when it returns."""
        confirm = self._must_be_confirmed(callback, event)
        return self.store.record(callback, event, self.subscriptions, confirm=confirm)

    def replay(self, callback_id: int, *, dry_run: bool = False) -> Outcome:
        """Send a stored message through parse and record again.

        With `dry_run` nothing is written, and the outcome is the one it would have alone. Raises
        NotFound, and NotJson or NotTheProtocol if it is still not understood.
        """
        stored = self.store.callback(callback_id)
        if not stored.callback.body:
            raise NotFound(f"callback {callback_id} has no body to replay")
        event = providers.get(stored.callback.provider).parse(stored.callback)
        confirm = self._must_be_confirmed(stored.callback, event)
        return self.store.reopen(
            stored, event, self.subscriptions, confirm=confirm, dry_run=dry_run
        )

    def give_up(self, task_id: str, now: int) -> None:
        """Stop asking about an open task; hooks that hear `given_up` fire. Raises NotFound."""
        self.store.give_up(task_id, now, self.subscriptions)

    def count(self, callback: Callback, event: Event | None, outcome: Outcome) -> None:
        """Count what a provider sent by itself."""
        if callback.source is not Source.CALLBACK:
            return
        provider = callback.provider
        status = measures.UNKNOWN if event is None else event.status.value
        self.meter.count(measures.CALLBACKS, provider, status, outcome.value)
        self.meter.note(measures.LAST_CALLBACK, callback.received_at / 1000, provider)
        # A provider that names no instant is taken to mean the receipt.
        if event and outcome is Outcome.RECORDED and event.occurred_at != callback.received_at:
            lag = max(0, callback.received_at - event.occurred_at) / 1000
            self.meter.observe(measures.CALLBACK_LAG, lag, provider)

    def _must_be_confirmed(self, callback: Callback, event: Event) -> bool:
        """Does this end count only once the provider has been asked?

        A success with nothing in it never counts: the picture is the result.
        """
        if event.status is Status.SUCCEEDED and not event.media:
            return True
        return event.status.is_terminal and callback.trust in UNCONFIRMED[self.confirm]


UNCONFIRMED = {
    Confirm.NEVER: (),
    Confirm.UNSIGNED: (Trust.TOKEN,),
    Confirm.ALWAYS: (Trust.TOKEN, Trust.SIGNED),
}
