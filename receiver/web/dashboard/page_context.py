"""Shared by the pages: the record, the hooks, and the formatting of times and hiding of secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from marshmallow import ValidationError

from receiver import providers
from receiver.config.settings import Settings
from receiver.deliveries import State
from receiver.errors import NotFound
from receiver.ingest import Ingest
from receiver.signing.callback_urls import TASK_ID
from receiver.stores.base import Store
from receiver.stores.sql.rows import TimeRange
from receiver.text.display import hiding
from receiver.web import cursors
from receiver.web.dashboard.formats import Formats

PAGE_SIZE = 50  # rows
MAX_REFERENCE = 1_000  # characters
TIME_CHOICES = {"": "Any time", "1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days"}


@dataclass(frozen=True, slots=True)
class PageContext:
    """The shared dependencies of the pages. `hide` removes secrets from text from outside."""

    ingest: Ingest
    formats: Formats
    hide: Callable[[str], str]

    @classmethod
    def of(cls, ingest: Ingest, settings: Settings, secrets: Iterable[str]) -> PageContext:
        return cls(ingest, Formats.of(settings.timezone), hiding(secrets))

    @property
    def store(self) -> Store:
        return self.ingest.store

    @property
    def hooks(self) -> list[str]:
        """The hooks in the hooks file, in its order."""
        return self.ingest.hooks

    def known_hooks(self) -> list[str]:
        """Return the hooks in the hooks file, then those that only have deliveries on record."""
        on_record = (count.hook for count in self.store.metrics.delivery_counts())
        return list(dict.fromkeys([*self.hooks, *on_record]))

    def delivery_counts(self, hook: str | None = None) -> Mapping[str, int]:
        """Return how many deliveries are in each state, of one hook or of all."""
        counts = dict.fromkeys(map(str, State), 0)
        for count in self.store.metrics.delivery_counts():
            if hook in (None, count.hook):
                counts[count.state] += count.value
        return counts

    def instant(self, field: str, text: str | None, now: int) -> int | None:
        """Return the instant in a form field; None if it is empty. Raises ValueError."""
        if not text or not text.strip():
            return None
        try:
            return self.formats.instant(text.strip(), now)
        except ValueError as error:
            raise ValueError(f"{field}: {error}.") from None

    def times(self, query: Mapping[str, str], now: int) -> TimeRange:
        """Return the time range in the fields of a filter. Raises ValueError with the problem."""
        return TimeRange(
            since=self.instant("From", query.get("since") or query.get("within"), now),
            until=self.instant("To", query.get("until"), now),
        )

    def task_id(self, text: str | None) -> str | None:
        """Return the id of the task whose own id, or id at a provider, is the text."""
        if text is None or not TASK_ID.fullmatch(text):
            return None
        if self.store.queries.tasks_by_id([text]):
            return text
        for provider in providers.PROVIDERS:
            try:
                return self.store.queries.task_by_provider_id(provider, text).id
            except NotFound:
                continue
        return None


def provider_in(query: Mapping[str, str]) -> str | None:
    """Return the provider in a filter; None for any. Raises ValueError with the problem."""
    provider = query.get("provider", "").strip()
    if provider and provider not in providers.PROVIDERS:
        raise ValueError(f"Provider: “{provider[:40]}” is unknown.")
    return provider or None


def reference_in(query: Mapping[str, str]) -> str | None:
    """Return the reference or id in a filter; None for any."""
    return query.get("q", "").strip().replace("\0", "")[:MAX_REFERENCE] or None


def row_before(kind: str, cursor: str) -> int | None:
    """Return the row in the cursor; None, for the first page, if it is not of this list."""
    try:
        return cursors.decode(kind, cursor) if cursor else None
    except ValidationError:
        return None
