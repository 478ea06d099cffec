"""Compares the provider task that a message names with the one on record; pure."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.events import Callback, Event, Source
from receiver.stores.sql.session import Row
from receiver.tasks import IdSource, mismatch_problem


@dataclass(frozen=True, slots=True)
class ProviderId:
    """The provider's id of the task in a message; empty in the response to a refused create.

    Ids are compared only with ids in the same column. If a provider may use other ids in callbacks
    than in responses, the ids in callbacks have a separate column.
    """

    id: str
    source: IdSource
    column: str  # of the table `tasks`
    sources: tuple[Source, ...]  # of messages whose ids are stored in this column

    @classmethod
    def of(cls, callback: Callback, event: Event, *, shares_ids: bool) -> ProviderId:
        source = IdSource(callback.source.value)
        if shares_ids:
            return cls(event.provider_task_id, source, "provider_task_id", tuple(Source))
        if callback.source is Source.CALLBACK:
            sources: tuple[Source, ...] = (Source.CALLBACK,)
            return cls(event.provider_task_id, source, "callback_task_id", sources)
        sources = (Source.CREATE, Source.QUERY)
        return cls(event.provider_task_id, source, "provider_task_id", sources)

    def is_first(self, task: Row) -> bool:
        """Return whether no id is on record yet."""
        return bool(self.id) and task[self.column] is None

    def is_other(self, task: Row) -> bool:
        """Return whether another id is on record."""
        known = task[self.column]
        # Surrounding whitespace is not part of an id.
        return bool(self.id) and known is not None and known.strip() != self.id.strip()

    def outranks(self, task: Row) -> bool:
        """Return whether the source of this id outranks the source of the id on record."""
        if not self.id or task[self.column] is None:
            return False
        known = task["id_source"] if self.column == "provider_task_id" else IdSource.CALLBACK
        return self.source.outranks(IdSource(known))

    def problem(self, known: str) -> str:
        return mismatch_problem(self.id, known)
