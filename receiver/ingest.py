"""Parses and records callbacks and the responses to queries; nothing else records messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from receiver import providers
from receiver.clock import now_ms
from receiver.config.hooks_file import HookEntry, limits_of
from receiver.config.settings import Settings
from receiver.config.table import Confirm
from receiver.deliveries import Subscription
from receiver.endpoints import Limits
from receiver.errors import NotFound, NotTheProtocol, RequestRefused, SettingsError, StoreError
from receiver.events import Callback, Event, Source
from receiver.observability import metrics
from receiver.observability.logger import Logger
from receiver.observability.metrics import MetricBuffer
from receiver.processes import current_hooks
from receiver.providers.fields import cleaned
from receiver.signing import callback_urls
from receiver.stores.base import Store
from receiver.stores.group_commit import Write
from receiver.stores.sql.inbox import RecordingOptions
from receiver.tasks import (
    QUERY_ADOPTED_AFTER,
    QUERY_ANNOUNCED_AFTER,
    Outcome,
    Status,
    Task,
    Trust,
    new_task_id,
)
from receiver.text.display import redacted, shortened

LONGEST_PROBLEM = 1_000  # characters
log = Logger()


def announce(
    store: Store, settings: Settings, provider: str, reference: str | None, account: str
) -> tuple[Task, str]:
    """Store a task that is created at the provider by other means; return it and its callback URL.

    Raises SettingsError, and StoreUnavailable.
    """
    if settings.public_url is None:
        raise SettingsError(["PUBLIC_URL: not set; it is where the provider reaches this machine"])
    if not providers.get(provider).has_callbacks:
        raise SettingsError([f"{provider} has no callbacks; use `submitter submit` instead"])
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
        deadline_at=now + _first_query(QUERY_ANNOUNCED_AFTER, settings),
    )
    secret = settings.with_secret().callback_secrets[0]
    store.inbox.create_task(task)
    return task, callback_urls.callback_url(settings.public_url, secret, provider, task.id)


@dataclass(frozen=True, slots=True)
class Ingest:
    """Parses and records messages of providers, for one store and one set of subscriptions."""

    store: Store
    subscriptions: Sequence[Subscription] = ()
    confirm: Confirm = Confirm.NEVER
    meter: MetricBuffer = field(default_factory=MetricBuffer)
    query_after: int = QUERY_ADOPTED_AFTER  # ms; see `store.inbox.record`
    limits: Mapping[str, Limits] = field(default_factory=dict)  # of the hooks that have any

    @classmethod
    def into(
        cls,
        store: Store,
        settings: Settings,
        meter: MetricBuffer | None = None,
        entries: Sequence[HookEntry] | None = None,
    ) -> Ingest:
        """Return an object that records in this store, for the hooks of these settings.

        `entries` are the hooks, if the process has already loaded them. Raises SettingsError.
        """
        entries = current_hooks.entries_for(settings) if entries is None else entries
        return cls(
            store,
            [entry.subscription for entry in entries],
            settings.confirm,
            meter or MetricBuffer(),
            _first_query(QUERY_ADOPTED_AFTER, settings),
            limits_of(entries),
        )

    @property
    def hooks(self) -> list[str]:
        """The names of the hooks in the hooks file, in its order."""
        return [subscription.hook for subscription in self.subscriptions]

    def accept(self, callback: Callback) -> Outcome:
        """Parse and record one message of a provider; it is durable when this returns.

        Returns Outcome.QUARANTINED for a signed message that concerns none of our tasks. Raises
        StoreError. Raises NotJson, BodyTooLong, NotTheProtocol or any error of an adapter after
        storing the message in quarantine.
        """
        try:
            event = providers.parse(callback)
            if callback.task_id is None:  # signed: only the body identifies the task
                from structlog.contextvars import bind_contextvars  # noqa: PLC0415 - slow

                bind_contextvars(provider_task=event.provider_task_id)
            outcome = self.record(callback, event)
        except StoreError:
            raise
        except Exception as error:
            self._quarantine(callback, error)
            if not self._concerns_no_task(callback, error):
                raise
            return Outcome.QUARANTINED
        self.count(callback, event, outcome)
        return outcome

    def record(self, callback: Callback, event: Event) -> Outcome:
        """Record a parsed message; it is durable when this returns. Raises StoreError."""
        return self.store.inbox.record(
            callback, event, self.subscriptions, **self._recording_options(callback, event)
        )

    def submit(self, callback: Callback, event: Event) -> Write[Any, Outcome]:
        """Like `record`, without waiting for the commit: see `store.inbox.submit`."""
        return self.store.inbox.submit(
            callback, event, self.subscriptions, **self._recording_options(callback, event)
        )

    def replay(self, callback_id: int, *, accept: bool = False, dry_run: bool = False) -> Outcome:
        """Parse and record a stored message again.

        With `accept`, record a mismatch: the provider task that it names becomes the one on record.
        With `dry_run`, nothing is written; the outcome is the one this message alone would have.
        Raises NotFound; NotAMismatch if the message cannot be accepted; and NotJson, BodyTooLong or
        NotTheProtocol if it still cannot be interpreted.
        """
        stored = self.store.queries.callback(callback_id)
        if not stored.callback.body:
            raise NotFound(f"callback {callback_id} has no body to replay")
        if stored.callback.task_id is None and stored.callback.trust is Trust.TOKEN:
            raise NotTheProtocol("its URL names a task of another provider, or it was empty")
        event = providers.parse(stored.callback)
        return self.store.inbox.reopen(
            stored,
            event,
            self.subscriptions,
            accept=accept,
            dry_run=dry_run,
            **self._recording_options(stored.callback, event),
        )

    def give_up(self, task_id: str, now: int) -> None:
        """Stop querying an open task, and notify hooks of `given_up`. Raises NotFound."""
        self.store.inbox.give_up(task_id, now, self.subscriptions)

    def count(self, callback: Callback, event: Event | None, outcome: Outcome) -> None:
        """Count a callback, and log a warning about any mismatch."""
        if outcome is Outcome.MISMATCH and event is not None:
            log.warning(
                "a message names another provider task than the one on record",
                task=callback.task_id,
                source=callback.source.value,
                provider_task=event.provider_task_id,
            )
        if callback.source is not Source.CALLBACK:
            return
        provider = callback.provider
        status = metrics.UNKNOWN if event is None else event.status.value
        self.meter.count(metrics.CALLBACKS, provider, status, outcome.value)
        self.meter.note(metrics.LAST_CALLBACK, callback.received_at / 1000, provider)
        # If the provider states no time, the event has the time of its receipt.
        if event and outcome is Outcome.RECORDED and event.occurred_at != callback.received_at:
            lag = max(0, callback.received_at - event.occurred_at) / 1000
            self.meter.observe(metrics.CALLBACK_LAG, lag, provider)

    def _recording_options(self, callback: Callback, event: Event) -> RecordingOptions:
        # A success without outputs is always confirmed, because a query has to fetch its result.
        is_empty = event.status is Status.SUCCEEDED and not event.media
        is_untrusted = callback.trust in UNCONFIRMED[self.confirm]
        return {
            "confirm": is_empty or (is_untrusted and event.status.is_terminal),
            "shares_ids": providers.get(callback.provider).shares_ids,
            "query_after": self.query_after,
        }

    def _quarantine(self, callback: Callback, error: Exception) -> None:
        problem = str(error)
        if not isinstance(error, RequestRefused):  # an adapter's bug: its text may contain secrets
            shown = cleaned(redacted(repr(error)))
            problem = shortened(f"it could not be processed: {shown}", LONGEST_PROBLEM)
        self.store.inbox.quarantine(callback, problem, query_after=self.query_after)
        self.count(callback, None, Outcome.QUARANTINED)

    def _concerns_no_task(self, callback: Callback, error: Exception) -> bool:
        """Return whether a quarantined message is signed and concerns none of our tasks.

        The test button of a provider's console sends such messages and expects a 200.
        """
        if callback.task_id is not None or callback.trust is not Trust.SIGNED:
            return False
        if callback.is_empty:
            return True
        if not isinstance(error, NotTheProtocol):
            return False
        try:
            self.store.queries.task_by_provider_id(callback.provider, error.about or "")
        except NotFound:
            return True
        return False


def _first_query(usual: int, settings: Settings) -> int:
    """Return ms until the first query of a task created elsewhere, at most RECONCILE_AFTER."""
    most = settings.reconcile_after
    return usual if most is None else min(usual, round(1000 * most))


# The final statuses that count only after a query has confirmed them.
UNCONFIRMED: dict[Confirm, tuple[Trust, ...]] = {
    Confirm.NEVER: (),
    Confirm.UNSIGNED: (Trust.TOKEN,),
    Confirm.ALWAYS: (Trust.TOKEN, Trust.SIGNED),
}
