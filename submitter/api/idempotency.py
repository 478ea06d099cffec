"""Gives all requests with one Idempotency-Key the same reply, so that no task is paid for twice.

A key is stored with the id of its task before anything is sent. If the process dies, another
request takes over the key and this id, and an id can be recorded only once.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from receiver.clock import now_ms
from receiver.errors import NotFound
from receiver.serializers.outputs import task_documents
from receiver.stores import Store
from receiver.stores.sql.idempotency import IdempotencyRecord, StoredResponse
from receiver.tasks import Status, Task, new_task_id
from submitter.api.errors import (
    EarlierOutcomeUnknown,
    InvalidKey,
    KeyInUse,
    KeyReused,
    TaskAlreadyRecorded,
)
from submitter.task_creation import was_not_accepted

KEY = re.compile(r"[ -~]{1,255}")
CLAIM_MS = 60_000  # a create takes up to 20 s, and its commits may have to wait as well
WAIT_SECONDS = 20.0  # for the reply to the first request with the same key
POLL_EVERY = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class ApiReply:
    """The reply stored for a key: a task (201), or the provider's rejection (422 or 502)."""

    status: int
    document: dict[str, Any]


def check_key(key: str) -> None:
    """Raise InvalidKey unless the key can be used."""
    if not KEY.fullmatch(key):
        raise InvalidKey({"Idempotency-Key": "use 1 to 255 printable ASCII characters"})


@dataclass(frozen=True, slots=True)
class IdempotencyKeys:
    """The keys in one store. Tests replace the last two fields."""

    store: Store
    claim_ms: int = CLAIM_MS
    wait_seconds: float = WAIT_SECONDS

    def reply(
        self, key: str, digest: bytes, create: Callable[[IdempotencyRecord], ApiReply]
    ) -> tuple[ApiReply, bool]:
        """Return a reply, either that of `create` or the stored one, and whether it was stored.

        `create` receives the claim and ends it. Raises
        what `create` raises, KeyReused, KeyInUse, and EarlierOutcomeUnknown.
        """
        ends_at = time.monotonic() + self.wait_seconds
        while True:
            stored = self._stored_reply(key, digest)
            if stored is not None:
                return stored, True
            now = now_ms()
            claim = self.store.idempotency.claim(
                key, digest, new_task_id(now), now, now + self.claim_ms
            )
            if claim is not None:
                try:
                    return create(claim), False
                except TaskAlreadyRecorded:
                    pass  # another request took over the claim, and its reply will be stored
            if time.monotonic() >= ends_at:
                raise KeyInUse(
                    "the first request with this key is still in progress", retry_after=5
                )
            time.sleep(POLL_EVERY)

    def end_claim(self, claim: IdempotencyRecord, reply: ApiReply | None) -> None:
        """Store the reply. Without one, later requests get a reply made from the recorded task."""
        answer = None if reply is None else StoredResponse(reply.status, json.dumps(reply.document))
        self.store.idempotency.settle(claim, now_ms(), answer)

    def _stored_reply(self, key: str, digest: bytes) -> ApiReply | None:
        """Return the reply to the first request with this key, or None if there is none yet."""
        record = self.store.idempotency.find(key, now_ms())
        if record is None:
            return None
        if record.digest != digest:
            raise KeyReused("this Idempotency-Key was used with another body; use a new key")
        if record.answer is not None:
            return ApiReply(record.answer.status, json.loads(record.answer.document))
        if record.held_until > now_ms():
            return None
        try:
            return reply_of(self.store, self.store.queries.task(record.task_id))
        except NotFound:
            return None


def reply_of(store: Store, task: Task) -> ApiReply:
    """Return the reply for a recorded task. Raises EarlierOutcomeUnknown if it is `created`."""
    if task.status is Status.CREATED:
        raise EarlierOutcomeUnknown(
            "the response to the create of the first request was lost. The task may have been "
            "accepted and paid for: do not submit it again without checking. "
            f"See GET /api/tasks/{task.id}",
            {"task": task.id},
        )
    if was_not_accepted(task):
        detail = task.reason or "the provider rejected the task"
        return ApiReply(HTTPStatus.BAD_GATEWAY, {"detail": detail, "task": task.id, "code": None})
    return ApiReply(HTTPStatus.CREATED, task_documents(store, [task])[0])
