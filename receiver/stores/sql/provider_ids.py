"""Which task of the provider a message names, compared with the one on record; pure."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.events import Callback, Event, Source
from receiver.stores.sql.session import Row
from receiver.tasks import IdSource


@dataclass(frozen=True, slots=True)
class Named:
    """The provider's id in a message, which is empty in the response to a refused create.

    Ids are compared with those of the same column only. If a provider may use other ids in
    callbacks than in responses, the ids of its callbacks have a column of their own.
    """

    id: str
    source: IdSource
    column: str  # of the table `tasks`
    sources: tuple[Source, ...]  # of the messages whose ids belong in this column

    @classmethod
    def by(cls, callback: Callback, event: Event, *, shares_ids: bool) -> Named:
        source = IdSource(callback.source.value)
        if shares_ids:
            return cls(event.provider_task_id, source, "provider_task_id", tuple(Source))
        if callback.source is Source.CALLBACK:
            sources: tuple[Source, ...] = (Source.CALLBACK,)
            return cls(event.provider_task_id, source, "callback_task_id", sources)
        sources = (Source.CREATE, Source.QUERY)
        return cls(event.provider_task_id, source, "provider_task_id", sources)

    def is_first(self, task: Row) -> bool:
        """Whether no id is on record yet."""
        return bool(self.id) and task[self.column] is None

    def is_other(self, task: Row) -> bool:
        """Whether another id is on record."""
        known = task[self.column]
        # Surrounding whitespace is not part of an id.
        return bool(self.id) and known is not None and known.strip() != self.id.strip()

    def outranks(self, task: Row) -> bool:
        """Whether the source of this id is better than the source of the id on record."""
        if not self.id or task[self.column] is None:
            return False
        known = task["id_source"] if self.column == "provider_task_id" else IdSource.CALLBACK
        return self.source.outranks(IdSource(known))

    def problem(self, known: str) -> str:
        return f"names the provider's task {self.id}; on record is {known}"
