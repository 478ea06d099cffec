"""The rest of every store's contract: what providers said they charged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from receiver.stores.base import TimeRange


@dataclass(frozen=True, slots=True)
class Charge:
    """What one task cost, as its provider wrote it."""

    row: int  # where the next page begins
    provider: str
    account: str
    reference: str | None
    created_at: int  # integer milliseconds UTC
    cost: str
    unit: str | None  # None: it was told to a release that did not keep it


class Charges(Protocol):
    """What providers said they charged."""

    def charges(
        self,
        created: TimeRange,
        *,
        after: int = 0,
        limit: int = 1000,
        provider: str | None = None,
        account: str | None = None,
    ) -> list[Charge]:
        """Of tasks created in the span, oldest first, those after this row."""
        ...
