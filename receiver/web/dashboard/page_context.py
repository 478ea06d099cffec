"""What every page has at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from marshmallow import ValidationError

from receiver.config.settings import Settings
from receiver.ingest import Ingest, known_secrets
from receiver.stores.base import Store
from receiver.text.display import hiding
from receiver.web import cursors
from receiver.web.dashboard.formats import Formats

MOST = 50  # rows of one page


@dataclass(frozen=True, slots=True)
class PageContext:
    """The record, the hooks, and how times and words are shown."""

    ingest: Ingest
    formats: Formats
    hide: Callable[[str], str]  # the secrets in what others wrote

    @property
    def store(self) -> Store:
        return self.ingest.store

    @property
    def hooks(self) -> list[str]:
        """The hooks of the hooks file, in its order."""
        return self.ingest.hooks

    def instant(self, field: str, text: str | None, now: int) -> int | None:
        """What a person wrote there; None for nothing. Raises ValueError that names the field."""
        if not text or not text.strip():
            return None
        try:
            return self.formats.instant(text.strip(), now)
        except ValueError as error:
            raise ValueError(f"{field}: {error}.") from None

    @classmethod
    def of(cls, ingest: Ingest, settings: Settings) -> PageContext:
        known = known_secrets(settings)
        return cls(ingest, Formats.of(settings.timezone), hiding(known))


def row_before(kind: str, cursor: str) -> int | None:
    """Where the page of a list begins; one of another list begins at the first page."""
    try:
        return cursors.decode(kind, cursor) if cursor else None
    except ValidationError:
        return None
