"""Asks a provider about a task; what it says enters the record by the same door as a callback."""

from __future__ import annotations

from receiver.errors import RequestRefused
from receiver.events import Source
from receiver.ingest import Ingest
from receiver.tasks import Outcome, Task
from submitter.errors import UnexpectedAnswer
from submitter.messages import message
from submitter.providers import Provider


def ask(ingest: Ingest, room: Provider, task: Task) -> Outcome:
    """Ask once, by the provider's id or else by ours; durable when it returns.

    Raises ProviderError (NotFoundAtProvider if it knows no such task), and StoreUnavailable.
    """
    if task.provider_task_id:
        answer = room.fetch(provider_task_id=task.provider_task_id)
    else:
        answer = room.fetch(external_task_id=task.id)
    try:
        return ingest.accept(message(task, answer, Source.QUERY))
    except RequestRefused as error:
        raise UnexpectedAnswer(
            f"the provider's answer was not understood and is kept in quarantine: {error}",
            http_status=answer.status,
            body=answer.body,
        ).about(task.id) from error
