"""Records every attempt at a callback and its response, which tests compare with the record."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sandbox.bounded_store import BoundedStore
from sandbox.clock import now_ms

if TYPE_CHECKING:
    from sandbox.outgoing_callbacks import OutgoingCallback

KEPT = 10_000


@dataclass(frozen=True)
class LedgerEntry:
    """One attempt. Times are Unix milliseconds; `answered_at` is None while it is running."""

    number: int
    provider: str
    task_id: str
    external_task_id: str | None
    status: str
    url: str
    attempt: int
    body_sha256: str
    insisted: bool  # whether it is sent again until it is acknowledged
    sent_at: int
    answered_at: int | None = None
    http_status: int | None = None
    error: str | None = None
    answer: str | None = None  # the first characters of the response

    @property
    def acknowledged(self) -> bool:
        """Return whether a complete 2xx response arrived."""
        return self.error is None and self.http_status is not None and self.http_status // 100 == 2

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "acknowledged": self.acknowledged}


class Ledger:
    def __init__(self, kept: int = KEPT) -> None:
        self._entries: BoundedStore[int, LedgerEntry] = BoundedStore(kept)
        self._numbers = itertools.count(1)

    def opened(self, callback: OutgoingCallback, attempt: int) -> LedgerEntry:
        """Record that an attempt begins; return the entry's number."""
        entry = LedgerEntry(
            number=next(self._numbers),
            provider=callback.provider,
            task_id=callback.task_id,
            external_task_id=callback.external_task_id,
            status=callback.status,
            url=callback.url,
            attempt=attempt,
            body_sha256=hashlib.sha256(callback.body).hexdigest(),
            insisted=callback.insisted,
            sent_at=now_ms(),
        )
        self._entries.put(entry.number, entry)
        return entry

    def closed(
        self,
        entry: LedgerEntry,
        *,
        http_status: int | None = None,
        error: str | None = None,
        answer: str | None = None,
    ) -> LedgerEntry:
        """Record the result of an attempt: a status, an error, or both."""
        done = replace(
            entry, answered_at=now_ms(), http_status=http_status, error=error, answer=answer
        )
        self._entries.put(done.number, done)
        return done

    def entries(self, task_id: str | None = None) -> list[LedgerEntry]:
        """Return the attempts, oldest first. `task_id` may also be an external id."""
        rows = self._entries.values()
        return [row for row in rows if task_id in (None, row.task_id, row.external_task_id)]

    def acknowledged(self, task_id: str | None = None) -> list[LedgerEntry]:
        return [row for row in self.entries(task_id) if row.acknowledged]
