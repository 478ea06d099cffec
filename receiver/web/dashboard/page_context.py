"""Shared by the pages: the record, the hooks, and the formatting of times and hiding of secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from marshmallow import ValidationError

from receiver.config.settings import Settings
from receiver.deliveries import State
from receiver.ingest import Ingest, known_secrets
from receiver.stores.base import Store
from receiver.text.display import hiding
from receiver.web import cursors
from receiver.web.dashboard.formats import Formats

PAGE_SIZE = 50  # rows


@dataclass(frozen=True, slots=True)
class PageContext:
    """The shared dependencies of the pages. `hide` removes secrets from text from outside."""

    ingest: Ingest
    formats: Formats
    hide: Callable[[str], str]

    @classmethod
    def of(cls, ingest: Ingest, settings: Settings) -> PageContext:
        hide = hiding(known_secrets(settings))
        return cls(ingest, Formats.of(settings.timezone), hide)

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


def row_before(kind: str, cursor: str) -> int | None:
    """Return the row in the cursor; None, for the first page, if it is not of this list."""
    try:
        return cursors.decode(kind, cursor) if cursor else None
    except ValidationError:
        return None
