"""What a provider answered us, as a message that enters the record by the door of callbacks."""

from __future__ import annotations

from receiver import providers
from receiver.clock import now_ms
from receiver.events import Callback, Source
from receiver.tasks import Task, Trust
from submitter.client import Answer

# Of use in support cases, and without secrets: cookies and the like are not kept.
KEPT_HEADERS = ("Content-Type", "Date", "X-Request-Id")


def message(task: Task, answer: Answer, source: Source) -> Callback:
    """The answer, received now."""
    kept = {name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}
    return words(task, answer.body, source, kept)


def words(
    task: Task, body: bytes, source: Source, headers: dict[str, str] | None = None
) -> Callback:
    """A body about this task, received now; empty where the provider said nothing."""
    received = Callback(
        provider=task.provider,
        task_id=task.id,
        body=body,
        received_at=now_ms(),
        headers=headers or {},
        source=source,
        trust=Trust.QUERIED,
    )
    return providers.without_secrets(received)
